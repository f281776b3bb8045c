"""Merge the objects of overlapping tiles, so that an object on a seam is found once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pe_dense.runtime.masks import CroppedMasks, union
from pe_dense.runtime.results import Detections
from pe_dense.tiling.grid import Tile, TileGrid

_SAME = 0.5  # IoU, inside of the overlap of two tiles, of two views of one object
_INSIDE = 0.8  # intersection over smaller area (IoS) of a part of an object and the object
_BORDER = 0.01  # of a tile's side: objects nearer to a seam are cut by it, since boxes are not exact


@dataclass
class _Part:
    """An object as a tile shows it.

    Attributes:
        index: number among the objects of all tiles.
        tile: its tile.
        box: (4,) float64 in pixels of the image.
        score, label: of the object.
        cut: whether it ends at a border of the tile that is not one of the image.
        group: parts of the same object, from different tiles.
    """

    index: int
    tile: Tile
    box: np.ndarray
    score: float
    label: int
    cut: bool
    group: list[_Part]


class ObjectMerger:
    """Collect the objects of tiles and merge them.

    Two objects of neighboring tiles are the same if they have the same class and agree inside of the overlap of the
    tiles: by their masks if there are any, else by their boxes. Each object has at most one partner per tile. Of the
    parts of an object, one that is not cut by a seam is kept; where all are cut, boxes and masks are united. What is
    cut by a seam and lies inside of a larger object of its class is removed.

    Args:
        grid: the tiles of the image.
    """

    def __init__(self, grid: TileGrid):
        self._grid = grid
        self._found: list[Detections] = []
        self._parts: dict[tuple[int, int], list[_Part]] = defaultdict(list)
        self._masks: list[tuple[CroppedMasks, int]] = []
        self._with_masks = False

    def add(self, tile: Tile, found: Detections) -> None:
        """Add the objects of a tile, in pixels of the tile."""
        offset = np.array([tile.columns.start, tile.rows.start] * 2)
        boxes = found.boxes + offset
        crops = found.crops()
        if crops is not None:
            self._with_masks = True
            crops = crops.shifted(tile.rows.start, tile.columns.start, self._grid.size)
        first = sum(map(len, self._found))
        for index in range(len(found)):
            part = _Part(
                first + index,
                tile,
                boxes[index].astype(np.float64),
                float(found.scores[index]),
                int(found.labels[index]),
                self._is_cut(tile, boxes[index]),
                [],
            )
            part.group = [part]
            self._parts[tile.row, tile.column].append(part)
            if crops is not None:
                self._masks.append((crops, index))
        self._found.append(replace(found, boxes=boxes.astype(np.float32), masks=None, size=self._grid.size))

    def finish(self) -> Detections | None:
        """Return the merged objects, best first; None without tiles."""
        if not self._found:
            return None
        for one, other in self._neighbors():
            self._match(one, other)
        every = [part for parts in self._parts.values() for part in parts]
        groups = {id(part.group): part.group for part in every}
        merged = [self._merged(group) for group in groups.values()]
        merged = self._without_parts(merged)
        merged.sort(key=lambda item: -item[0].score)
        first = self._found[0]
        labels = np.array([part.label for part, _ in merged], np.int64)
        masks = None
        if self._with_masks:  # also without any object: a model with masks has 0 of them then
            parts = [self._crop(part) if mask is None else mask for part, mask in merged]
            masks = CroppedMasks([crop for crop, _ in parts], [corner for _, corner in parts], self._grid.size)
        return replace(
            first,
            boxes=np.array([part.box for part, _ in merged], np.float32).reshape(-1, 4),
            scores=np.array([part.score for part, _ in merged], np.float32),
            labels=labels,
            names=tuple(first.classes[label] for label in labels) if first.classes else (),
            masks=masks,
        )

    def _is_cut(self, tile: Tile, box: np.ndarray) -> bool:
        height, width = self._grid.size
        left, top, right, bottom = tile.box
        margin = max(_BORDER * (right - left), 2), max(_BORDER * (bottom - top), 2)
        return bool(
            (left > 0 and box[0] <= left + margin[0])
            or (top > 0 and box[1] <= top + margin[1])
            or (right < width and box[2] >= right - margin[0])
            or (bottom < height and box[3] >= bottom - margin[1])
        )

    def _neighbors(self) -> Iterator[tuple[list[_Part], list[_Part]]]:
        """Yield the objects of all pairs of tiles that overlap."""
        count = len(self._grid.rows), len(self._grid.columns)
        for (row, column), parts in list(self._parts.items()):
            for other_row in range(row, count[0]):
                if self._grid.rows[other_row].start >= self._grid.rows[row].stop:
                    break
                for other_column in range(count[1]):
                    spans = self._grid.columns[column], self._grid.columns[other_column]
                    apart = spans[0].stop <= spans[1].start or spans[1].stop <= spans[0].start
                    if not apart and (row, column) < (other_row, other_column):
                        yield parts, self._parts.get((other_row, other_column), [])

    def _match(self, one: list[_Part], other: list[_Part]) -> None:
        if not one or not other:
            return
        zone = _intersection(np.array(one[0].tile.box, float), np.array(other[0].tile.box, float))
        if not _area(zone):
            return
        clipped = [[(part, _intersection(part.box, zone)) for part in parts] for parts in (one, other)]
        inside = [[item for item in items if _area(item[1])] for items in clipped]
        pairs = []
        for a, box_a in inside[0]:
            for b, box_b in inside[1]:
                if a.label == b.label and (same := self._agreement(a, b, box_a, box_b, zone)) >= _SAME:
                    pairs.append((same, a, b))
        for _, a, b in sorted(pairs, key=lambda pair: -pair[0]):
            tiles = {(part.tile.row, part.tile.column) for part in a.group}
            if not tiles & {(part.tile.row, part.tile.column) for part in b.group}:
                joined = a.group + b.group
                for part in joined:
                    part.group = joined

    def _agreement(self, a: _Part, b: _Part, box_a: np.ndarray, box_b: np.ndarray, zone: np.ndarray) -> float:
        """Return the IoU of two objects inside of a zone."""
        shared = _area(_intersection(box_a, box_b))
        total = _area(box_a) + _area(box_b) - shared
        boxes = shared / total if total else 0.0
        if not self._masks or not shared:
            return boxes
        masks = [_clip(self._crop(part), zone) for part in (a, b)]
        shared = _shared_pixels(*masks)
        total = sum(int(crop.sum()) for crop, _ in masks) - shared
        return shared / total if total else boxes

    def _merged(self, group: list[_Part]) -> tuple[_Part, tuple | None]:
        """Return one object for the parts of a group, and its united mask if it is not that of the part."""
        # A complete view first, the best one; else the largest part.
        ordered = sorted(group, key=lambda part: (part.cut, -_area(part.box) if part.cut else -part.score))
        whole, masks, united = ordered[0], [], False
        box = whole.box
        for part in ordered[1:]:
            if whole.cut or _inside(part.box, box) < _INSIDE:
                box = np.concatenate([np.minimum(box[:2], part.box[:2]), np.maximum(box[2:], part.box[2:])])
                masks.append(part)
                united = True
        score = max(part.score for part in group)
        merged = replace(whole, box=box, score=score)
        if not united or not self._masks:
            return merged, None
        return merged, union([self._crop(part) for part in (whole, *masks)])

    def _without_parts(self, merged: list[tuple[_Part, tuple | None]]) -> list[tuple[_Part, tuple | None]]:
        """Remove parts that are cut by a seam and lie inside of a larger object of their class."""
        by_label = defaultdict(list)
        for part, mask in merged:
            by_label[part.label].append((part, mask))
        kept = []
        for items in by_label.values():
            boxes = np.array([part.box for part, _ in items])
            areas = np.array([_area(box) for box in boxes])
            for number, (part, mask) in enumerate(items):
                if part.cut:
                    sides = np.minimum(boxes[:, 2:], part.box[2:]) - np.maximum(boxes[:, :2], part.box[:2])
                    inside = np.clip(sides, 0, None).prod(1) / max(areas[number], 1e-9)
                    larger = (inside >= _INSIDE) & (areas > areas[number])
                    if any(self._covers(items[i], part) for i in np.flatnonzero(larger)):
                        continue
                kept.append((part, mask))
        return kept

    def _covers(self, item: tuple[_Part, tuple | None], part: _Part) -> bool:
        if not self._masks:
            return True
        crop = self._crop(part)
        larger = self._crop(item[0]) if item[1] is None else item[1]
        return _shared_pixels(crop, larger) >= _INSIDE * max(int(crop[0].sum()), 1)

    def _crop(self, part: _Part) -> tuple[np.ndarray, tuple[int, int]]:
        crops, index = self._masks[part.index]
        return crops.crop(index)


def _intersection(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])])


def _area(box: np.ndarray) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def _inside(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two boxes over the smaller area (IoS)."""
    smaller = min(_area(one), _area(other))
    return _area(_intersection(one, other)) / smaller if smaller else 1.0


def _clip(mask: tuple[np.ndarray, tuple[int, int]], zone: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Clip a crop of a mask to a zone x1, y1, x2, y2."""
    crop, (row, column) = mask
    left, top, right, bottom = (int(value) for value in zone)
    first, start = max(top - row, 0), max(left - column, 0)
    part = crop[first : max(bottom - row, first), start : max(right - column, start)]
    return part, (row + first, column + start)


def _shared_pixels(one: tuple[np.ndarray, tuple[int, int]], other: tuple[np.ndarray, tuple[int, int]]) -> int:
    """Count the pixels that two crops of masks share."""
    (a, (row, column)), (b, (other_row, other_column)) = one, other
    box = np.array([column, row, column + a.shape[1], row + a.shape[0]])
    clipped, (top, left) = _clip((b, (other_row, other_column)), box)
    part = a[top - row : top - row + clipped.shape[0], left - column : left - column + clipped.shape[1]]
    return int((part & clipped).sum())
