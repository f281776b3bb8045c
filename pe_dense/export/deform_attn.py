"""Deformable attention without GridSample, for exported graphs.

TensorRT is known to fuse GridSample wrongly, and the bags of ``F.embedding_bag`` export as a loop. Tokens are gathered
by index here and multiplied by their weights; see :mod:`pe_dense.ops.deform_attn` for the shape notation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class HasLevels(Protocol):
    """An object that knows the height and width of each level."""

    level_shapes: Sequence[tuple[int, int]]


def sample_levels(
    owner: HasLevels,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """Compute :func:`~pe_dense.ops.deform_attn.ms_deform_attn_forward` from levels of known sizes.

    Args:
        owner: knows the sizes as numbers.
        value: (B, S, M, D).
        spatial_shapes, level_start_index: not used; a graph would have to read their values.
        locations: (B, Q, M, L, P, 2).
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D).
    """
    batch, tokens, heads, channels = value.shape
    queries = locations.shape[1]
    rows = value.flatten(0, 2)  # (B * S * M, D)
    images = torch.arange(batch, dtype=torch.int32)[:, None, None, None] * tokens
    head = torch.arange(heads, dtype=torch.int32)[:, None]
    start, total = 0, None
    for level, (height, width) in enumerate(owner.level_shapes):
        x = locations[:, :, :, level, :, 0] * width - 0.5  # (B, Q, M, P)
        y = locations[:, :, :, level, :, 1] * height - 0.5
        left, top = x.floor(), y.floor()
        along, down = x - left, y - top
        for row, share_of_row in ((top, 1 - down), (top + 1, down)):
            for column, share_of_column in ((left, 1 - along), (left + 1, along)):
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                # Clamped as floating-point numbers: converting large ones to integers is undefined.
                index = row.clamp(0, height - 1).int() * width + column.clamp(0, width - 1).int()
                index = (images + start + index) * heads + head
                share = share_of_row * share_of_column * inside * weights[:, :, :, level]
                taken = rows.index_select(0, index.flatten()).view(batch, queries, heads, -1, channels)
                part = (taken * share[..., None]).sum(3)
                total = part if total is None else total + part
        start += height * width
    return total.flatten(2)
