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
        for row, share_of_row in _neighbors(y, height):
            for column, share_of_column in _neighbors(x, width):
                index = (images + start + row * width + column) * heads + head
                share = share_of_row * share_of_column * weights[:, :, :, level]
                taken = rows.index_select(0, index.flatten()).view(batch, queries, heads, -1, channels)
                part = (taken * share[..., None]).sum(3)
                total = part if total is None else total + part
        start += height * width
    return total.flatten(2)


def _neighbors(places: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two tokens around each place along an axis, int32, and their weights, 0 outside of the map."""
    first = places.floor()
    share = places - first
    found = []
    for token, weight in ((first, 1 - share), (first + 1, share)):
        inside = (token >= 0) & (token < length)
        # Clamped as floating-point numbers: converting large ones to integers is undefined.
        found.append((token.clamp(0, length - 1).int(), weight * inside))
    return found
