"""Masks of the objects of an image, stored as crops, and their run lengths and outlines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pe_dense.utils.errors import UserError


class CroppedMasks(Sequence):
    """Masks (N, H, W) bool of an image, of which only the part around each object is stored, at one bit per pixel.

    ``masks[i]`` is a mask (H, W) bool, ``masks[chosen]`` with a slice or an index array are some of the masks, and
    ``numpy.asarray(masks)`` is the array of all of them, which needs N x H x W bytes.

    Args:
        crops: masks (h, w) bool, outside of which the masks are empty.
        corners: row and column of the top left pixel of each crop.
        size: (H, W) of the image.
    """

    dtype = np.dtype(bool)

    def __init__(self, crops: Iterable[np.ndarray], corners: Iterable[tuple[int, int]], size: tuple[int, int]):
        self._parts = [
            (np.packbits(crop), crop.shape, (int(row), int(column)))
            for crop, (row, column) in zip(crops, corners, strict=True)
        ]
        self.size = (int(size[0]), int(size[1]))

    @classmethod
    def of(cls, masks: np.ndarray) -> CroppedMasks:
        """Crop masks (N, H, W) bool to the pixels that are set."""
        crops, corners = [], []
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            top, left = (int(places[0]) if len(places) else 0 for places in (rows, columns))
            bottom, right = (int(places[-1]) + 1 if len(places) else 0 for places in (rows, columns))
            crops.append(mask[top:bottom, left:right])
            corners.append((top, left))
        return cls(crops, corners, masks.shape[1:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W), as of an array."""
        return (len(self._parts), *self.size)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            mask = np.zeros(self.size, bool)
            crop, (row, column) = self.crop(index)
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
            return mask
        chosen = CroppedMasks((), (), self.size)
        chosen._parts = [self._parts[i] for i in np.arange(len(self))[index]]
        return chosen

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        masks = np.zeros(self.shape, bool)
        for mask, (crop, (row, column)) in zip(masks, self.crops(), strict=True):
            mask[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
        return masks if dtype is None else masks.astype(dtype)

    def __repr__(self) -> str:
        return f"CroppedMasks(shape={self.shape})"

    def crop(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the crop (h, w) bool of a mask, and row and column of its top left pixel."""
        bits, shape, corner = self._parts[index]
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).view(bool), corner

    def crops(self) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """Yield :meth:`crop` of each mask."""
        return (self.crop(index) for index in range(len(self)))

    def shifted(self, row: int, column: int, size: tuple[int, int]) -> CroppedMasks:
        """Return the masks of a tile as those of its image: moved by rows and columns, in an image of another size."""
        moved = CroppedMasks((), (), size)
        moved._parts = [(bits, shape, (r + row, c + column)) for bits, shape, (r, c) in self._parts]
        return moved


def union(parts: Sequence[tuple[np.ndarray, tuple[int, int]]]) -> tuple[np.ndarray, tuple[int, int]]:
    """Unite crops of masks: the smallest crop that contains all of them, and its corner."""
    top, left = (min(corner[axis] for _, corner in parts) for axis in (0, 1))
    bottom, right = (max(corner[axis] + crop.shape[axis] for crop, corner in parts) for axis in (0, 1))
    whole = np.zeros((bottom - top, right - left), bool)
    for crop, (row, column) in parts:
        whole[row - top : row - top + crop.shape[0], column - left : column - left + crop.shape[1]] |= crop
    return whole, (top, left)


def run_lengths(mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict:
    """Encode a mask as COCO's compressed RLE, from a crop outside of which the mask is empty.

    Args:
        mask: (h, w) bool, the crop.
        corner: row and column of the crop's top left pixel.
        size: (H, W) of the whole mask.

    Raises:
        UserError: if pycocotools is not installed.
    """
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise UserError("pycocotools, which encodes masks, is not installed: pip install pycocotools") from error

    (height, width), (top, left), rows = size, corner, mask.shape[0] + 2
    padded = np.zeros((mask.shape[1], rows), bool)  # column by column, with a gap between columns
    padded[:, 1:-1] = mask.T
    flat = padded.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    changes = (left + changes // rows) * height + top + changes % rows - 1  # starts and ends, in turn
    starts, ends = changes[::2], changes[1::2]
    joined = ends[:-1] == starts[1:]  # from the bottom of a column to the top of the next
    starts, ends = starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]
    counts = np.diff(np.stack([starts, ends], 1).ravel(), prepend=0, append=height * width).tolist()
    code = rle.frPyObjects(dict(size=[int(height), int(width)], counts=counts), int(height), int(width))
    return dict(size=[int(height), int(width)], counts=code["counts"].decode())


def outlines(mask: np.ndarray, corner: tuple[int, int] = (0, 0), tolerance: float = 0.0) -> list[np.ndarray]:
    """Trace the outer outlines of the parts of a mask, along the edges of pixels; holes are filled.

    Args:
        mask: (h, w) bool, a crop.
        corner: row and column of the crop's top left pixel.
        tolerance: largest distance in pixels by which a simplified outline may differ.

    Returns:
        polygons (M, 2) float64 of x and y in pixels of the image, the largest one first.

    Raises:
        UserError: if OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError("OpenCV, which traces masks, is not installed: pip install opencv-python-headless") from error

    # Contours connect the centers of pixels. At twice the size, those of the border pixels map to the pixels' edges.
    twice = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in found:
        contour = contour[:, 0]
        edges = (contour + contour % 2) // 2
        kept = np.any(edges != np.roll(edges, 1, 0), axis=1)
        edges = edges[kept]
        if tolerance > 0:
            edges = cv2.approxPolyDP(edges.astype(np.int32)[:, None], tolerance, True)[:, 0]
        if len(edges) >= 3:
            polygons.append(edges + np.array(corner[::-1], np.float64))
    return sorted(polygons, key=_polygon_area, reverse=True)


def joined_outline(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Join the polygons of an object to one, as YOLO's format needs: the others hang on lines without width."""
    first, *others = polygons
    if not others:
        return first
    start = first[:1]
    return np.concatenate([first, start, *(part for other in others for part in (other, other[:1], start))])


def yolo_text(boxes: np.ndarray, labels: np.ndarray, masks: CroppedMasks | None, size: tuple[int, int]) -> str:
    """Return the text of a label file of YOLO's format, see :meth:`pe_dense.runtime.Detections.to_yolo`.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,).
        masks: N masks, whose outlines are written instead of the boxes; None for boxes.
        size: (H, W) of the image.
    """
    lines = []
    for index, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if masks is None:
            left, top, right, bottom = (float(value) for value in box)
            values = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        else:
            polygons = outlines(*masks.crop(index))
            if not polygons:
                continue
            values = joined_outline(polygons).ravel()
        values = np.clip(values / np.resize(size[::-1], len(values)), 0, 1)
        lines.append(" ".join([str(int(label)), *(f"{value:.6f}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def _polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
