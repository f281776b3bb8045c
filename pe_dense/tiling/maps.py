"""Blend the maps of overlapping tiles, keeping only what later tiles need."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pe_dense.tiling.grid import Tile, TileGrid

_STRIP_BYTES = 256 << 20  # up to this size, the strip between two rows of tiles is kept in memory
_BAND_BYTES = 32 << 20  # scores that are decided at once, since deciding copies them
_MAP_BYTES = 64 << 20  # up to this size, the result is kept in memory


class MapBlender:
    """Average the scores of tiles where they overlap, with weights that fall towards the borders of tiles.

    A part of the image is decided as soon as its last tile was added. Until then, only the overlap with the next tile
    and the strip of overlaps with the next row of tiles are kept; a strip of more than 256 MB goes to a temporary file,
    in half precision. The result goes to a temporary file, too, if it has more than 64 MB.

    Args:
        grid: the tiles of the image.
        decide: converts scores (C, h, w) float32 to values (h, w) of the result, such as labels.
        dtype: of the result.
        folder: for temporary files; the system's by default.
    """

    def __init__(
        self,
        grid: TileGrid,
        decide: Callable[[np.ndarray], np.ndarray],
        dtype: type[np.generic],
        folder: Path | None = None,
    ):
        self._grid, self._decide, self._folder = grid, decide, folder
        self.result = self._new_map(dtype)
        self._right: tuple[np.ndarray, np.ndarray] | None = None
        self._strips: dict[int, _Kept] = {}
        self._file = None

    def add(self, tile: Tile, scores: np.ndarray) -> None:
        """Add the scores (C, h, w) float32 of a tile, which are overwritten. Tiles are added row by row.

        Args:
            tile: the tile.
            scores: at the size of the tile.
        """
        height, width = scores.shape[1:]
        down, across = self._weights(tile)
        weights = down[:, None] * across
        scores *= weights
        if self._right is not None:
            kept, kept_weights = self._right
            scores[..., : kept.shape[-1]] += kept
            weights[:, : kept.shape[-1]] += kept_weights
        if tile.column in self._strips:  # up to the first column of the next tile, which adds its own
            kept, kept_weights = self._strips[tile.column].read()
            rows, columns = kept_weights.shape
            scores[:, :rows, :columns] += kept
            weights[:rows, :columns] += kept_weights
        next_rows, next_columns = self._next(self._grid.rows, tile.row), self._next(self._grid.columns, tile.column)
        bottom = height if next_rows is None else next_rows.start - tile.rows.start
        right = width if next_columns is None else next_columns.start - tile.columns.start
        done = scores[:, :bottom, :right]
        done /= weights[:bottom, :right]
        result = self.result[tile.rows.start :, tile.columns.start :][:bottom, :right]
        rows = max(1, _BAND_BYTES // done[:, :1].nbytes)
        for start in range(0, bottom, rows):
            result[start : start + rows] = self._decide(done[:, start : start + rows])
        self._right = None if next_columns is None else (scores[..., right:].copy(), weights[:, right:].copy())
        if bottom < height:
            self._keep(tile.column, scores[:, bottom:, :right], weights[bottom:, :right])
        else:
            self._strips.pop(tile.column, None)

    def _keep(self, column: int, values: np.ndarray, weights: np.ndarray) -> None:
        width = self._grid.size[1]
        overlap = max(a.stop - b.start for a, b in zip(self._grid.rows, self._grid.rows[1:], strict=False))
        if len(values) * overlap * width * 4 <= _STRIP_BYTES:
            self._strips[column] = _Kept(values.copy(), weights.copy())
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the blender
        offset = 2 * len(values) * overlap * self._grid.columns[column].start
        self._file.seek(offset)
        values.astype(np.float16).tofile(self._file)
        self._strips[column] = _Kept(values.shape, weights.copy(), self._file, offset)

    @staticmethod
    def _next(spans: tuple[slice, ...], index: int) -> slice | None:
        return spans[index + 1] if index + 1 < len(spans) else None

    def _weights(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            _ramp(spans, index) for spans, index in ((self._grid.rows, tile.row), (self._grid.columns, tile.column))
        )

    def _new_map(self, dtype: type[np.generic]) -> np.ndarray:
        height, width = self._grid.size
        if height * width * np.dtype(dtype).itemsize <= _MAP_BYTES:
            return np.zeros((height, width), dtype)
        # The file has no name any more and is removed with the last reference to the map.
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return np.memmap(file, dtype, "w+", shape=(height, width))


class _Kept:
    """Scores and weights of an overlap with the next row of tiles, in memory or in a file."""

    def __init__(self, values, weights: np.ndarray, file=None, offset: int = 0):
        self._values, self._weights, self._file, self._offset = values, weights, file, offset

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (C, h, w) and weights (h, w)."""
        if self._file is None:
            return self._values, self._weights
        self._file.seek(self._offset)
        count = int(np.prod(self._values))
        return np.fromfile(self._file, np.float16, count).reshape(self._values), self._weights


def _ramp(spans: tuple[slice, ...], index: int) -> np.ndarray:
    """Return weights along one side of a tile: 1, falling linearly towards 0 in the overlaps with its neighbors."""
    span = spans[index]
    weights = np.ones(span.stop - span.start, np.float32)
    for other in (index - 1, index + 1):
        if not 0 <= other < len(spans):
            continue
        shared = min(span.stop, spans[other].stop) - max(span.start, spans[other].start)
        if shared > 0:
            rise = (np.arange(shared, dtype=np.float32) + 0.5) / shared
            part = slice(0, shared) if other < index else slice(len(weights) - shared, None)
            weights[part] = np.minimum(weights[part], rise if other < index else rise[::-1])
    return weights
