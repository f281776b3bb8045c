"""Windows of tokens: the order in which windowed attention sees a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


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

    def split(self, x: Tensor) -> Tensor:
        """(B, 1, H * W, C) -> (B, windows, size * size, C)."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, self.height, self.width, channels)
        if not self.fits:
            x = F.pad(x, (0, 0, 0, width - self.width, 0, height - self.height))
        x = x.view(batch, height // size, size, width // size, size, channels).transpose(2, 3)
        return x.reshape(batch, -1, size * size, channels)

    def merge(self, x: Tensor) -> Tensor:
        """(B, windows, size * size, C) -> (B, 1, H * W, C), without the added tokens."""
        batch, _, _, channels = x.shape
        (height, width), size = self.padded, self.size
        x = x.view(batch, height // size, width // size, size, size, channels).transpose(2, 3)
        x = x.reshape(batch, height, width, channels)[:, : self.height, : self.width]
        return x.reshape(batch, 1, -1, channels)
