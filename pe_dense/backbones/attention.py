"""Attention of queries, keys and values, two-dimensional rotary position embedding (RoPE) and window partition.

Source: RoPE-2D as in the published towers. Half of a head's channels are rotated by the column, half by the row. Pairs
of neighboring channels ``(a, b)`` become ``(a cos - b sin, b cos + a sin)``, and frequencies decrease from 1 as
``10000 ** (-2 j / (head_dim / 2))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

THETA = 10000.0
# Number of tokens up to which attention is trained in bfloat16 on a CPU as two matrix products and a softmax, since the
# backward pass of PyTorch's fused kernel is slow there (benchmarks/attention.py). With AVX512-BF16 this is faster for
# 1,025 tokens, too, but N * N weights per head are kept for the backward pass.
MAX_TOKENS_WRITTEN_OUT = 640
# Logits that are computed at once without gradients in bfloat16 on a CPU: 2 MB, which stay in the cache.
LOGITS_OF_A_PART = 2**20


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    memory_efficient: bool = True,
) -> Tensor:
    """Compute scaled dot-product attention by the implementation that is faster for the length, dtype and device.

    On a CPU in bfloat16, attention is written out as two matrix products and a softmax: with gradients for at most
    :data:`MAX_TOKENS_WRITTEN_OUT` keys, without gradients for any number, if there is no mask, in parts that fit into
    the cache. Otherwise it is ``F.scaled_dot_product_attention``. The results are equal up to bfloat16 rounding of the
    logits.

    Args:
        q: queries (B, heads, N, head_dim).
        k, v: keys and values (B, heads, M, head_dim).
        attn_mask: (B or 1, heads or 1, N, M), bool, false where a query does not attend to a key. The output of a query
            that attends to no key is zero.
        is_causal: whether query i attends to the keys 0 to i only; not together with ``attn_mask``.
        memory_efficient: whether a custom function without double backward and ``torch.func`` support may be used.

    Returns:
        (B, heads, N, head_dim).
    """
    if _is_bfloat16_on_cpu(q):
        if not torch.is_grad_enabled() or not (q.requires_grad or k.requires_grad or v.requires_grad):
            if attn_mask is None and not is_causal:
                return attend_in_parts(q, k, v)
        elif k.shape[2] <= MAX_TOKENS_WRITTEN_OUT:
            if is_causal:
                attn_mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            return attend_written_out(q, k, v, attn_mask, memory_efficient=memory_efficient)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=is_causal)


def trains_in_bfloat16_on_cpu(x: Tensor) -> bool:
    """Return whether linear layers of x are computed in bfloat16 on a CPU, eagerly, and gradients may be needed."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    eager = not torch.compiler.is_compiling()
    return x.device.type == "cpu" and dtype == torch.bfloat16 and torch.is_grad_enabled() and eager


def _is_bfloat16_on_cpu(x: Tensor) -> bool:
    # The compiler replaces the written-out form by the fused one, so compiled code uses that.
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.compiler.is_compiling()


def attend_in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute scaled dot-product attention without gradients, some heads or queries at a time; see :func:`attend`."""
    output = torch.empty_like(q, memory_format=torch.contiguous_format)
    queries, keys = q.shape[2], k.shape[2]
    heads, rows = max(LOGITS_OF_A_PART // (queries * keys), 1), max(LOGITS_OF_A_PART // keys, 1)
    flat = [x.reshape(-1, *x.shape[2:]).split(heads) for x in (q, k, v)]
    # Used again by every part: the first access to each page of new memory takes time.
    size = min(heads, q.shape[0] * q.shape[1]) * min(rows, queries) * keys
    of_logits, of_weights = q.new_empty(size), q.new_empty(size)
    for part, q, k, v in zip(output.flatten(0, 1).split(heads), *flat, strict=True):
        for of_rows, some in zip(part.split(rows, dim=1), q.split(rows, dim=1), strict=True):
            shape = (*some.shape[:2], keys)
            logits, weights = (buffer[: math.prod(shape)].view(shape) for buffer in (of_logits, of_weights))
            torch.baddbmm(logits, some, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5, out=logits)
            torch.softmax(logits, dim=-1, out=weights)
            of_rows.copy_(weights @ v)
    return output


def attend_written_out(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, memory_efficient: bool = True
) -> Tensor:
    """Compute scaled dot-product attention as two matrix products and a softmax; see :func:`attend`."""
    if memory_efficient:
        return _WrittenOut.apply(q, k, v, attn_mask)
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    if attn_mask is None:
        return weights.softmax(dim=-1) @ v
    # A finite value, and zero weights after the softmax: a row without any key must be zero, not NaN.
    weights = weights.masked_fill(~attn_mask, torch.finfo(weights.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~attn_mask, 0.0) @ v


class _WrittenOut(torch.autograd.Function):
    """:func:`attend_written_out` with fewer copies: the products apply the scale, and each tensor is copied once."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
        batch = q.shape[:2]
        q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
        weights = _product(q, k.transpose(1, 2), q.shape[-1] ** -0.5)
        if attn_mask is None:
            weights = weights.softmax(dim=-1)
        else:
            weights.unflatten(0, batch).masked_fill_(~attn_mask, torch.finfo(weights.dtype).min)
            weights = weights.softmax(dim=-1)
            weights.unflatten(0, batch).masked_fill_(~attn_mask, 0.0)
        ctx.save_for_backward(q, k, v, weights)
        return (weights @ v).unflatten(0, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        q, k, v, weights = ctx.saved_tensors
        batch, scale = grad.shape[:2], q.shape[-1] ** -0.5
        grad = grad.reshape(-1, *grad.shape[2:])
        of_v = weights.transpose(1, 2) @ grad
        of_weights = grad @ v.transpose(1, 2)
        of_logits = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_q, of_k = _product(of_logits, k, scale), _product(of_logits.transpose(1, 2), q, scale)
        # Logits with weight 0, as masked ones, have no gradient.
        return *(x.unflatten(0, batch) for x in (of_q, of_k, of_v)), None


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Multiply batches of matrices (n, N, K) and (n, K, M), and the result by a scale."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


class RotaryTable(NamedTuple):
    """Cosines and sines of the rotation angles of N tokens, each of shape (N, head_dim / 2)."""

    cos: Tensor
    sin: Tensor


def axis_positions(length: int, *, native: int | None, reference: int | None, offset: int) -> Tensor:
    """Compute rotary positions of the ``length`` patches along one axis, in patches.

    Args:
        length: number of patches.
        native: number of patches that span the reference range; None without a reference grid.
        reference: the range that ``native`` patches are rescaled to (``arange(n) / n * reference + 1`` in the published
            detectors); None for the integer positions of the published tower.
        offset: the first integer position: 1 if a class token occupies position 0.

    Returns:
        (length,), float32.
    """
    if reference is None:
        return torch.arange(length, dtype=torch.float32) + offset
    return torch.arange(length, dtype=torch.float32) / native * reference + 1


def rotary_table(rows: Tensor, columns: Tensor, head_dim: int, *, with_cls_token: bool = False) -> RotaryTable:
    """Build the rotary table of a grid of patches in row-major order.

    Args:
        rows: (H,) vertical positions.
        columns: (W,) horizontal positions.
        head_dim: channels of a head, a multiple of 4.
        with_cls_token: prepend an entry with zero rotation.

    Returns:
        cosines and sines, each ((1 +) H * W, head_dim / 2), float32.
    """
    half = head_dim // 2
    frequencies = 1.0 / THETA ** (torch.arange(0, half, 2, dtype=torch.float32) / half)  # (half / 2,)
    x = (columns[:, None] * frequencies).expand(rows.shape[0], -1, -1)  # (H, W, half / 2)
    y = (rows[:, None, None] * frequencies).expand(-1, columns.shape[0], -1)  # (H, W, half / 2)
    angles = torch.cat([x, y], dim=-1).flatten(0, 1)  # (H * W, half)
    if with_cls_token:
        angles = torch.cat([angles.new_zeros(1, half), angles])
    return RotaryTable(angles.cos(), angles.sin())


def with_unrotated_tokens(table: RotaryTable | None, count: int) -> RotaryTable | None:
    """Prepend entries of ``count`` tokens that are not rotated to a rotary table."""
    if table is None or not count:
        return table
    shape = (count, table.cos.shape[1])
    return RotaryTable(
        torch.cat([table.cos.new_ones(shape), table.cos]), torch.cat([table.sin.new_zeros(shape), table.sin])
    )


def apply_rope(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate pairs of neighboring channels by the angles of their token.

    Args:
        x: (B, N, ..., head_dim) queries or keys; half precision is rotated in float32, as in the reference
            implementation.
        table: cosines and sines (N, head_dim / 2).

    Returns:
        the rotated tensor, with the shape and dtype of x.
    """
    shape = (x.shape[1],) + (1,) * (x.dim() - 3) + (x.shape[-1] // 2,)
    cos, sin = table.cos.view(shape), table.sin.view(shape)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return turned.type_as(x)


@dataclass(frozen=True)
class Windows:
    """Partition of a grid of tokens into square attention windows, starting at the top left corner.

    Tokens have shape (B, G, N, C): G groups of N tokens that attend to each other. Global attention has one group,
    window attention has one group per window. If the window size does not divide the grid, the grid is padded with
    zero tokens at the bottom and right.

    Args:
        height, width: the grid, in tokens.
        size: side of a window, in tokens.
    """

    height: int
    width: int
    size: int

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the padded grid, in tokens."""
        return (
            -(-self.height // self.size) * self.size,
            -(-self.width // self.size) * self.size,
        )

    @property
    def fits(self) -> bool:
        """Whether the window size divides the grid, so that no padding is needed."""
        return self.padded == (self.height, self.width)

    def window_partition(self, x: Tensor) -> Tensor:
        """Partition tokens into windows: (B, 1, H * W, C) -> (B, windows, size * size, C)."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, self.height, self.width, channels)
        if not self.fits:
            x = F.pad(x, (0, 0, 0, width - self.width, 0, height - self.height))
        x = x.view(batch, height // size, size, width // size, size, channels).transpose(2, 3)
        return x.reshape(batch, -1, size * size, channels)

    def window_unpartition(self, x: Tensor) -> Tensor:
        """Reverse the partition and remove padding: (B, windows, size * size, C) -> (B, 1, H * W, C)."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, height // size, width // size, size, size, channels).transpose(2, 3)
        x = x.reshape(batch, height, width, channels)[:, : self.height, : self.width]
        return x.reshape(batch, 1, -1, channels)
