"""Triton kernels of deformable attention; see :mod:`pe_dense.ops.deform_attn` for the shape notation.

A program processes a block of rows, each one head of a query, with all their channels. It accumulates in float32 in
registers and only writes the result. Neighboring rows are heads of the same query, which sample tokens that are close
to each other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from pe_dense.ops import deform_attn_torch

TILE = 512  # rows times channels of a program; 1024 needs up to twice the registers, which halves the occupancy


@triton.jit
def _corner(x, y, height, width, DOWN: tl.constexpr, RIGHT: tl.constexpr):
    """Compute one of four tokens around points: index in the map, whether it is inside, weights by y and by x."""
    row, column = tl.floor(y) + DOWN, tl.floor(x) + RIGHT
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.to(tl.int64) * width + column.to(tl.int64)
    return index, inside, 1 - tl.abs(y - row), 1 - tl.abs(x - column)


@triton.jit
def _add(a, b):
    return a + b


@triton.jit
def _forward(
    value, shapes, starts, locations, weights, output, rows, tokens, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    known = row < rows
    channel = tl.arange(0, CHANNELS)
    real = known[:, None] & (channel < channels)[None, :]
    first = row // (queries * heads) * tokens  # token of the row's image
    total = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    for level in range(LEVELS):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        begin = first + tl.load(starts + level)
        for point in range(POINTS):
            place = (row * LEVELS + level) * POINTS + point
            weight = tl.load(weights + place, mask=known, other=0.0).to(tl.float32)
            x = tl.load(locations + 2 * place, mask=known, other=0.0).to(tl.float32) * width - 0.5
            y = tl.load(locations + 2 * place + 1, mask=known, other=0.0).to(tl.float32) * height - 0.5
            for corner in tl.static_range(4):
                index, inside, by_y, by_x = _corner(x, y, height, width, corner // 2, corner % 2)
                cell = (((begin + index) * heads + row % heads) * channels)[:, None] + channel[None, :]
                found = tl.load(value + cell, mask=real & inside[:, None], other=0.0).to(tl.float32)
                total += found * (weight * by_y * by_x)[:, None]
    cell = (row * channels)[:, None] + channel[None, :]
    tl.store(output + cell, total.to(output.dtype.element_ty), mask=real)


@triton.jit
def _backward(
    value, shapes, starts, locations, weights, grad, of_value, of_locations, of_weights,
    rows, tokens, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    known = row < rows
    channel = tl.arange(0, CHANNELS)
    real = known[:, None] & (channel < channels)[None, :]
    first = row // (queries * heads) * tokens
    given = tl.load(grad + (row * channels)[:, None] + channel[None, :], mask=real, other=0.0).to(tl.float32)
    for level in range(LEVELS):
        height, width = tl.load(shapes + 2 * level), tl.load(shapes + 2 * level + 1)
        begin = first + tl.load(starts + level)
        for point in range(POINTS):
            place = (row * LEVELS + level) * POINTS + point
            weight = tl.load(weights + place, mask=known, other=0.0).to(tl.float32)
            x = tl.load(locations + 2 * place, mask=known, other=0.0).to(tl.float32) * width - 0.5
            y = tl.load(locations + 2 * place + 1, mask=known, other=0.0).to(tl.float32) * height - 0.5
            of_weight = tl.full((ROWS,), 0.0, tl.float32)
            of_x = tl.full((ROWS,), 0.0, tl.float32)
            of_y = tl.full((ROWS,), 0.0, tl.float32)
            for corner in tl.static_range(4):
                index, inside, by_y, by_x = _corner(x, y, height, width, corner // 2, corner % 2)
                cell = (((begin + index) * heads + row % heads) * channels)[:, None] + channel[None, :]
                here = real & inside[:, None]
                found = tl.load(value + cell, mask=here, other=0.0).to(tl.float32)
                along = tl.reduce(found * given, 1, _add)  # gradient of the bilinear weight of this token
                of_weight += along * by_y * by_x
                of_y += along * by_x * (2 * (corner // 2) - 1)
                of_x += along * by_y * (2 * (corner % 2) - 1)
                tl.atomic_add(of_value + cell, given * (weight * by_y * by_x)[:, None], mask=here, sem="relaxed")
            tl.store(of_weights + place, of_weight.to(of_weights.dtype.element_ty), mask=known)
            tl.store(of_locations + 2 * place, (of_x * weight * width).to(of_locations.dtype.element_ty), mask=known)
            tl.store(
                of_locations + 2 * place + 1, (of_y * weight * height).to(of_locations.dtype.element_ty), mask=known
            )


def forward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`pe_dense.ops.deform_attn_torch.forward`."""
    output = value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])
    _launch(_forward, value, spatial_shapes, level_start_index, locations, weights, output)
    return output


def backward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pe_dense.ops.deform_attn_torch.backward`; the gradient of ``value`` is not deterministic.

    It is accumulated with atomic additions, whose order varies.
    """
    of_value = torch.zeros(value.shape, dtype=torch.float32, device=value.device)
    of_locations = torch.empty_like(locations, memory_format=torch.contiguous_format)
    of_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    buffers = (of_value, of_locations, of_weights)
    _launch(_backward, value, spatial_shapes, level_start_index, locations, weights, grad, *buffers)
    return of_value.to(value.dtype), of_locations, of_weights


def _launch(kernel, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, *others):
    batch, tokens, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    padded = triton.next_power_of_2(channels)
    block, rows = max(TILE // padded, 1), batch * queries * heads
    if not rows:
        return
    tensors = (value, spatial_shapes, level_start_index, locations, *others)
    with torch.cuda.device_of(value):
        kernel[(triton.cdiv(rows, block),)](
            *(tensor.contiguous() for tensor in tensors),
            *(rows, tokens, queries, heads, channels),
            LEVELS=levels, POINTS=points, ROWS=block, CHANNELS=padded,
        )  # fmt: skip


@torch.inference_mode(False)
def check(device: torch.device | str) -> None:
    """Run both kernels on a small input and compare them with the PyTorch implementation.

    Inference mode is disabled, because the gradients are computed too.

    Raises:
        RuntimeError: if the results differ.
        Exception: any error of Triton when it cannot compile or run the kernels.
    """
    generator = torch.Generator().manual_seed(0)
    shapes, starts = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
    value, grad = torch.randn(1, 16, 2, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    locations = torch.rand(1, 5, 2, 2, 3, 2, generator=generator) * 1.5 - 0.25
    weights = torch.rand(1, 5, 2, 2, 3, generator=generator)
    given = [tensor.to(device) for tensor in (value, shapes, starts, locations, weights, grad)]
    ours = [forward(*given[:5]), *backward(*given)]
    expected = [deform_attn_torch.forward(*given[:5]), *deform_attn_torch.backward(*given)]
    for mine, theirs in zip(ours, expected, strict=True):
        if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4):
            raise RuntimeError(f"results differ from PyTorch by {(mine - theirs).abs().max().item():.1e} on {device}")
