"""How much boxes overlap."""

from torch import Tensor, maximum, minimum

from pe_dense.utils.dtype import widened

_IOU, _IOF = 0, 1


def box_areas(boxes: Tensor, offset: int = 0) -> Tensor:
    """Areas of boxes (..., 4) as x1, y1, x2, y2 in px, with sides ``x2 - x1 + offset``: (...) in px^2."""
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def intersections(boxes1: Tensor, boxes2: Tensor, offset: int = 0) -> Tensor:
    """Areas shared by boxes (..., 4) and (..., 4), broadcast against each other: (...) in px^2."""
    top_left = maximum(boxes1[..., :2], boxes2[..., :2])
    bottom_right = minimum(boxes1[..., 2:], boxes2[..., 2:])
    return (bottom_right - top_left + offset).clamp(min=0).prod(-1)


def iou(boxes1: Tensor, boxes2: Tensor, offset: int = 0) -> Tensor:
    """Intersections over unions of boxes (..., 4) and (..., 4), broadcast: (...), NaN where both areas are zero."""
    shared = intersections(boxes1, boxes2, offset)
    return shared / (box_areas(boxes1, offset) + box_areas(boxes2, offset) - shared)


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fills ``ious`` with the overlaps of two sets of boxes (``mmcv.ops.bbox_overlaps``).

    Args:
        bboxes1: (M, 4), x1, y1, x2, y2 in px.
        bboxes2: (N, 4).
        ious: (M, N), or (M,) where aligned; filled in place, NaN where the overlap is relative to an area of zero.
        mode: 0 relates the intersection to the union, 1 to the area of the first box.
        aligned: box by box (M == N) instead of each with each.
        offset: the sides of a box are ``x2 - x1 + offset``; 1 takes coordinates as indices of pixels.

    Raises:
        ValueError: for another mode.
    """
    if mode not in (_IOU, _IOF):
        raise ValueError(f"mode must be {_IOU} (iou) or {_IOF} (iof), got {mode}")
    boxes1, boxes2 = widened(bboxes1, bboxes2)
    if not aligned:
        boxes1 = boxes1[:, None]
    shared = intersections(boxes1, boxes2, offset)
    area = box_areas(boxes1, offset)
    if mode == _IOU:
        area = area + box_areas(boxes2, offset) - shared
    ious.copy_(shared / area)
