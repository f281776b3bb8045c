"""Overlapping tiles that cover an image."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from pe_dense.utils.errors import InputError

_SMALLEST = 32  # px


@dataclass(frozen=True)
class Tiling:
    """Size of tiles and their overlap.

    Args:
        size: side of a square tile in pixels.
        overlap: smallest overlap of neighboring tiles, as a part of the size, at least 0 and below 0.9.

    Raises:
        InputError: for values outside of these ranges.
    """

    size: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.size < _SMALLEST:
            raise InputError(f"tile {self.size} is not a number of pixels of at least {_SMALLEST}")
        if not 0 <= self.overlap < 0.9:
            raise InputError(f"overlap {self.overlap:g} is not a part of the tile from 0 to below 0.9")

    def grid(self, height: int, width: int) -> TileGrid:
        """Return the tiles of an image of this size."""
        return TileGrid(self._spans(height), self._spans(width), (height, width))

    def _spans(self, length: int) -> tuple[slice, ...]:
        """Spread as few tiles as give the overlap evenly; one that is shorter if the length is."""
        if length <= self.size:
            return (slice(0, length),)
        shared = int(self.size * self.overlap)
        count = ceil((length - shared) / (self.size - shared))
        starts = [round(number * (length - self.size) / (count - 1)) for number in range(count)]
        return tuple(slice(start, start + self.size) for start in starts)


@dataclass(frozen=True)
class Tile:
    """A tile of an image.

    Attributes:
        row, column: its place in the grid.
        rows, columns: its pixels.
    """

    row: int
    column: int
    rows: slice
    columns: slice

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels of the image."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image.

    Attributes:
        rows, columns: pixels of the rows and columns of tiles.
        size: (H, W) of the image.
    """

    rows: tuple[slice, ...]
    columns: tuple[slice, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self):
        """Yield the tiles row by row."""
        for row, rows in enumerate(self.rows):
            for column, columns in enumerate(self.columns):
                yield Tile(row, column, rows, columns)
