"""Recognize boxes that are not written as left, top, width and height in pixels."""

from __future__ import annotations

import numpy as np

_MOST = 0.75  # share of the boxes that must fit a convention


def wrong_convention(boxes: np.ndarray, areas: np.ndarray, sizes: np.ndarray, extents: np.ndarray) -> str | None:
    """Tell whether the boxes of a file are written in another way than COCO's.

    Where there are masks, boxes are compared with the masks' extents. Without masks, boxes are taken for corners if
    all of them could be and either ``area`` says so or many would extend beyond their image as left, top, width and
    height; and for normalized ones if none is larger than a pixel.

    Args:
        boxes: N x 4, as in the file.
        areas: N, as in the file; NaN where missing.
        sizes: width and height of the images, N x 2.
        extents: left, top, right and bottom of the masks, N x 4; NaN where unknown.

    Returns:
        the convention, or None for COCO's.
    """
    known = np.isfinite(boxes).all(axis=1) & np.isfinite(sizes).all(axis=1)
    boxes, areas, sizes, extents = boxes[known], areas[known], sizes[known], extents[known]
    if not len(boxes):
        return None
    if (sizes > 4).all() and np.abs(boxes).max() <= 1 and (boxes % 1 != 0).any():
        return _NORMALIZED
    masked = np.isfinite(extents).all(axis=1)
    masked &= (extents[:, 2:] - extents[:, :2] >= 1).all(axis=1)
    if masked.any():
        return _by_masks(boxes[masked], sizes[masked], extents[masked])
    return _CORNERS if _are_corners(boxes, areas, sizes) else None


_CORNERS = "corners [left, top, right, bottom]"
_NORMALIZED = "normalized to the image's size"


def _by_masks(boxes: np.ndarray, sizes: np.ndarray, extents: np.ndarray) -> str | None:
    """The convention in which most boxes are their masks' extents, if COCO's is not."""
    if _share(_from_corner(boxes), extents) >= 0.5:
        return None
    scale = np.concatenate([sizes, sizes], axis=1)
    swapped = boxes[:, [1, 0, 3, 2]]
    candidates = {
        _CORNERS: boxes,
        "[center x, center y, width, height]": _from_center(boxes),
        "[top, left, height, width]": _from_corner(swapped),
        "[top, left, bottom, right]": swapped,
        _NORMALIZED: _from_corner(boxes * scale),
        f"{_NORMALIZED}, as corners": boxes * scale,
        f"{_NORMALIZED}, with centers": _from_center(boxes * scale),
        "in percent of the image's size": _from_corner(boxes * scale / 100),
    }
    shares = {name: _share(corners, extents) for name, corners in candidates.items()}
    best = max(shares, key=shares.get)
    if shares[best] >= _MOST:
        return best
    return None


def _share(corners: np.ndarray, extents: np.ndarray) -> float:
    """Share of the boxes that are nearly their masks' extents."""
    sides = (extents[:, 2:] - extents[:, :2]).max(axis=1)
    return float((np.abs(corners - extents).max(axis=1) <= np.maximum(1.5, 0.05 * sides)).mean())


def _from_corner(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _from_center(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _are_corners(boxes: np.ndarray, areas: np.ndarray, sizes: np.ndarray) -> bool:
    possible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sizes + 1).all(axis=1)
    if possible.mean() < 0.99:
        return False
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + 2).any(axis=1).mean()
    as_corners = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    as_sides = np.prod(boxes[:, 2:], axis=1)
    said = np.isfinite(areas) & (areas > 0) & (np.abs(as_corners - as_sides) > 0.02 * as_sides)
    if said.any():
        if (np.abs(areas - as_corners) <= 0.01 * as_corners + 1)[said].mean() >= _MOST:
            return True
        if (np.abs(areas - as_sides) <= 0.01 * as_sides + 1)[said].mean() >= _MOST and len(boxes) < 10:
            return False
    return bool(beyond >= (0.5 if len(boxes) < 10 else 0.2))
