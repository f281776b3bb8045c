"""Boxes of annotations, held to their image."""

from __future__ import annotations

import math
from collections.abc import Sequence


def box_fault(box: Sequence[float], area: float, width: int, height: int) -> str | None:
    """Why nothing can be learned from a box.

    Args:
        box: left, top, width and height in pixels.
        area: of the object, in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        the end of "a box ...", or None for a good one.
    """
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        return "not of four numbers"
    if box[2] <= 0 or box[3] <= 0 or area <= 0:
        return "of zero area"
    *_, inner_width, inner_height = clip_box(box, width, height)
    if inner_width <= 0 or inner_height <= 0:
        return "outside of the image"
    return "under a pixel wide or high" if min(inner_width, inner_height) < 1 else None


def clip_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """The part of a box that is in its image, of no or a negative extent if there is none.

    Args:
        box: left, top, width and height in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if min(left, top) >= 0 and right <= width and bottom <= height:
        return list(box)  # to the last bit
    left, top = max(left, 0), max(top, 0)
    return [left, top, min(right, width) - left, min(bottom, height) - top]
