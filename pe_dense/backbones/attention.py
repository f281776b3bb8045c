"""Two-dimensional rotary position embedding.

Source: RoPE-2D as in the published towers: half of a head's channels turn with the column, half with the row, pairs
of neighboring channels ``(a, b)`` become ``(a cos - b sin, b cos + a sin)`` and frequencies fall from 1 as
``10000 ** (-2 j / (head_dim / 2))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

THETA = 10000.0


class RotaryTable(NamedTuple):
    """Cosines and sines of every token's angles, each of shape (N, head_dim / 2)."""

    cos: Tensor
    sin: Tensor


def axis_positions(length: int, *, native: int | None, reference: int | None, offset: int) -> Tensor:
    """Positions of the ``length`` patches along one axis, in patches.

    Args:
        length: number of patches.
        native: number of patches that span the reference range; None without a reference grid.
        reference: the range that ``native`` patches are squeezed or stretched to (the detection towers'
            ``arange(n) / n * reference + 1``); None for the integers of the published tower.
        offset: the first position of the integers: 1 where a class token holds position 0.
    """
    if reference is None:
        return torch.arange(length, dtype=torch.float32) + offset
    return torch.arange(length, dtype=torch.float32) / native * reference + 1


def rotary_table(rows: Tensor, columns: Tensor, head_dim: int, *, with_cls_token: bool = False) -> RotaryTable:
    """Tables for a grid of patches in row-major order.

    Args:
        rows: (H,) vertical positions.
        columns: (W,) horizontal positions.
        head_dim: channels of a head, a multiple of 4.
        with_cls_token: prepend an entry that does not turn.

    Returns:
        cosines and sines, each ((1 +) H * W, head_dim / 2), float32.
    """
    half = head_dim // 2
    frequencies = 1.0 / THETA ** (torch.arange(0, half, 2, dtype=torch.float32) / half)  # (half / 2,)
    x = (columns[:, None] * frequencies).expand(len(rows), -1, -1)  # (H, W, half / 2)
    y = (rows[:, None, None] * frequencies).expand(-1, len(columns), -1)  # (H, W, half / 2)
    angles = torch.cat([x, y], dim=-1).flatten(0, 1)  # (H * W, half)
    if with_cls_token:
        angles = torch.cat([angles.new_zeros(1, half), angles])
    return RotaryTable(angles.cos(), angles.sin())


def apply_rope(x: Tensor, table: RotaryTable) -> Tensor:
    """Turn neighboring channel pairs by their token's angles.

    Args:
        x: (B, N, ..., head_dim) queries or keys; half precision is turned in float32, as in the reference.
        table: cosines and sines (N, head_dim / 2).

    Returns:
        the turned tensor, of x's shape and dtype.
    """
    shape = (x.shape[1],) + (1,) * (x.dim() - 3) + (x.shape[-1] // 2,)
    cos, sin = table.cos.view(shape), table.sin.view(shape)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return turned.type_as(x)


@dataclass(frozen=True)
class Windows:
    """A grid of tokens cut into square windows from its top left corner.

    Tokens travel as (B, G, N, C): G groups of N tokens that attend to each other, so that the whole grid is one group
    and windowed attention is attention on more groups. A grid that the window does not divide is filled up with zero
    tokens at the bottom and the right.

    Args:
        height, width: the grid, in tokens.
        size: side of a window, in tokens.
    """

    height: int
    width: int
    size: int

    @property
    def padded(self) -> tuple[int, int]:
        """The grid after filling up, in tokens."""
        return (
            -(-self.height // self.size) * self.size,
            -(-self.width // self.size) * self.size,
        )

    @property
    def fits(self) -> bool:
        """Whether windows divide the grid, so that no token is added."""
        return self.padded == (self.height, self.width)

    def window_partition(self, x: Tensor) -> Tensor:
        """(B, 1, H * W, C) -> (B, windows, size * size, C)."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, self.height, self.width, channels)
        if not self.fits:
            x = F.pad(x, (0, 0, 0, width - self.width, 0, height - self.height))
        x = x.view(batch, height // size, size, width // size, size, channels).transpose(2, 3)
        return x.reshape(batch, -1, size * size, channels)

    def window_unpartition(self, x: Tensor) -> Tensor:
        """(B, windows, size * size, C) -> (B, 1, H * W, C), without the added tokens."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, height // size, width // size, size, size, channels).transpose(2, 3)
        x = x.reshape(batch, height, width, channels)[:, : self.height, : self.width]
        return x.reshape(batch, 1, -1, channels)
