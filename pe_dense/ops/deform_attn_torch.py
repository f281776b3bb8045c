"""Deformable attention in PyTorch, level by level; see :mod:`pe_dense.ops.deform_attn` for the shape notation."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.ops.roi_align import widened


def forward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Compute the output (B, Q, M * D), with the dtype of ``value``.

    See :func:`~pe_dense.ops.deform_attn.ms_deform_attn_forward` for the arguments.
    """
    wide_value, locations, weights = widened(value, locations, weights)
    output = wide_value.new_zeros(*locations.shape[:2], value.shape[2] * value.shape[3])
    for level, tokens, size in _levels(spatial_shapes, level_start_index):
        output += _attend(wide_value[:, tokens], size, locations[:, :, :, level], weights[:, :, :, level])
    return output.to(value.dtype)


def backward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gradients of value, locations and weights, with their dtypes; the sum is recomputed level by level.

    Args:
        value, spatial_shapes, level_start_index, locations, weights: see :func:`forward`.
        grad: (B, Q, M * D), gradient of the output.
    """
    gradients = tuple(map(torch.zeros_like, (value, locations, weights)))
    of_value, of_locations, of_weights = gradients
    wide_value, locations, weights, grad = widened(value, locations, weights, grad)
    with torch.enable_grad():
        for level, tokens, size in _levels(spatial_shapes, level_start_index):
            leaves = [
                part.detach().requires_grad_()
                for part in (wide_value[:, tokens], locations[:, :, :, level], weights[:, :, :, level])
            ]
            part = _attend(leaves[0], size, leaves[1], leaves[2])
            found = torch.autograd.grad(part, leaves, grad)
            of_value[:, tokens], of_locations[:, :, :, level], of_weights[:, :, :, level] = found
    return gradients


def _levels(spatial_shapes: Tensor, level_start_index: Tensor) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Yield the index, the slice of tokens and the (height, width) of each level."""
    starts = level_start_index.tolist()
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        yield level, slice(starts[level], starts[level] + height * width), (height, width)


def _attend(value: Tensor, size: tuple[int, int], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute the contribution of one level to the output, (B, Q, M * D).

    Each query and head is a bag of 4 P tokens: ``F.embedding_bag`` sums the weighted tokens without copying them.

    Args:
        value: (B, h * w, M, D).
        size: h, w.
        locations: (B, Q, M, P, 2).
        weights: (B, Q, M, P).
    """
    batch, tokens, heads, channels = value.shape
    indices, shares = _corners(locations, *size)  # (B, Q, M, P, 4)
    shares = shares * weights[..., None]
    images = torch.arange(batch, dtype=indices.dtype, device=indices.device)[:, None, None, None, None]
    head = torch.arange(heads, dtype=indices.dtype, device=indices.device)[:, None, None]
    rows = (images * tokens + indices) * heads + head
    summed = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),
        value.reshape(-1, channels),
        per_sample_weights=shares.flatten(3).flatten(0, 2),
        mode="sum",
    )  # (B * Q * M, D)
    return summed.view(batch, -1, heads * channels)


def _corners(locations: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Compute indices (..., 4) of the tokens around each location (..., 2) and their bilinear weights (..., 4).

    Tokens outside the map have weight 0 and an arbitrary valid index.
    """
    x, y = (locations * locations.new_tensor([width, height]) - 0.5).unbind(-1)
    left, top = x.detach().floor(), y.detach().floor()
    along, down = x - left, y - top
    # Clamp after the conversion to integers: a NaN or infinite location becomes an arbitrary integer.
    left, top = left.int(), top.int()
    indices, shares = [], []
    for row, share_of_row in ((top, 1 - down), (top + 1, down)):
        for column, share_of_column in ((left, 1 - along), (left + 1, along)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            indices.append(row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
            shares.append(share_of_row * share_of_column * inside)
    return torch.stack(indices, -1), torch.stack(shares, -1)
