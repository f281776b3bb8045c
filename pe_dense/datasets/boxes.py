"""Boxes of annotations: which can be used for training, and clipping to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence


def box_fault(box: Sequence[float], area: float, width: int, height: int) -> str | None:
    """Explain why a box cannot be used for training.

    Args:
        box: left, top, width and height in pixels.
        area: area of the object in pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.

    Returns:
        the reason, or None if the box is usable.
    """
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        return "not four numbers"
    if box[2] <= 0 or box[3] <= 0 or area <= 0:
        return "of zero area"
    *_, inner_width, inner_height = clip_box(box, width, height)
    if inner_width <= 0 or inner_height <= 0:
        return "outside of the image"
    return "less than a pixel wide or high" if min(inner_width, inner_height) < 1 else None


def clip_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """Clip a box to its image; width or height is zero or negative if it is outside.

    Args:
        box: left, top, width and height in pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.
    """
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if min(left, top) >= 0 and right <= width and bottom <= height:
        return list(box)  # to the last bit
    left, top = max(left, 0), max(top, 0)
    return [left, top, min(right, width) - left, min(bottom, height) - top]
