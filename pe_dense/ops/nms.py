"""Non-maximum suppression (NMS), class-wise NMS and Soft-NMS."""

from collections.abc import Sequence

import torch
from torch import Tensor, maximum, minimum
from torchvision import ops

from pe_dense.ops.roi_align import widened

_IOU, _IOF = 0, 1


def box_areas(boxes: Tensor, offset: int = 0) -> Tensor:
    """Compute areas of boxes (..., 4) as x1, y1, x2, y2 in px, with sides ``x2 - x1 + offset``: (...) in px^2."""
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def intersections(boxes1: Tensor, boxes2: Tensor, offset: int = 0) -> Tensor:
    """Compute intersection areas of boxes (..., 4) and (..., 4), with broadcasting: (...) in px^2."""
    top_left = maximum(boxes1[..., :2], boxes2[..., :2])
    bottom_right = minimum(boxes1[..., 2:], boxes2[..., 2:])
    return (bottom_right - top_left + offset).clamp(min=0).prod(-1)


def iou(boxes1: Tensor, boxes2: Tensor, offset: int = 0) -> Tensor:
    """Compute the IoU of boxes (..., 4) and (..., 4), with broadcasting: (...), NaN if both areas are zero."""
    shared = intersections(boxes1, boxes2, offset)
    return shared / (box_areas(boxes1, offset) + box_areas(boxes2, offset) - shared)


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Compute IoU or IoF between two sets of boxes into ``ious`` (``mmcv.ops.bbox_overlaps``).

    Args:
        bboxes1: (M, 4), x1, y1, x2, y2 in px.
        bboxes2: (N, 4).
        ious: (M, N), or (M,) if ``aligned``; written in place, NaN if the denominator is zero.
        mode: 0 for intersection over union (IoU), 1 for intersection over the area of the first box (IoF).
        aligned: compare boxes pairwise (M == N) instead of all with all.
        offset: the sides of a box are ``x2 - x1 + offset``; 1 for coordinates that are inclusive pixel indices.

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


_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Apply non-maximum suppression.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in px.
        scores: (N,).
        iou_threshold: IoU above which the box with the lower score is removed.
        offset: the sides of a box are ``x2 - x1 + offset``.

    Returns:
        (K,), int64 indices of the boxes that are kept, by decreasing score.
    """
    boxes, scores = widened(boxes, scores)
    # Moving one corner lengthens the sides; intersections grow by the same offset.
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return ops.nms(boxes, scores, iou_threshold)


# On a CPU, boxes are suppressed class by class from this many pairs (N^2) per class, where that is faster; on a GPU,
# which compares pairs in parallel, from this many boxes, since one NMS of all of them needs N^2 bits of memory.
PAIRS_PER_CLASS_ON_CPU = 40_000
BOXES_ON_GPU = 20_000


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Apply non-maximum suppression within each class.

    Many boxes are suppressed class by class, because the time of NMS grows with the number of pairs. Classes of few
    boxes are separated by shifting the boxes by their label, as in torchvision and MMCV, but in float64: in float32 the
    coordinates of later classes are rounded (to 0.06 px at label 1000 of a 1024 px image), which moves overlaps across
    the threshold, and boxes with negative coordinates may overlap those of the class before.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in any unit.
        scores: (N,).
        labels: (N,), class or other group indices, from 0.
        iou_threshold: IoU above which the box of a class with the lower score is removed.

    Returns:
        (K,), int64 indices of the boxes that are kept, by decreasing score; those of equal score in their order.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    boxes, scores = boxes.double(), scores.double()
    on_cpu = boxes.device.type == "cpu"
    if len(boxes) ** 2 > PAIRS_PER_CLASS_ON_CPU if on_cpu else len(boxes) > BOXES_ON_GPU:
        order = labels.argsort(stable=True)
        sizes = torch.unique_consecutive(labels[order], return_counts=True)[1].tolist()
        if not on_cpu or len(boxes) ** 2 > PAIRS_PER_CLASS_ON_CPU * len(sizes):
            return _nms_by_class(boxes, scores, order.split(sizes), iou_threshold)
    span = boxes.max() - boxes.min() + 1
    return ops.nms(boxes + (labels.double() * span)[:, None], scores, iou_threshold)


def _nms_by_class(boxes: Tensor, scores: Tensor, classes: Sequence[Tensor], iou_threshold: float) -> Tensor:
    """Apply NMS to the boxes of each class, given by their increasing indices; see :func:`batched_nms`."""
    kept = torch.cat([members[ops.nms(boxes[members], scores[members], iou_threshold)] for members in classes])
    kept = kept.sort().values  # so that boxes of equal score stay in their order
    return kept[scores[kept].argsort(descending=True, stable=True)]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Apply Soft-NMS: decrease scores by the overlap with boxes of higher score (Bodla et al., ICCV 2017, eq. 1-3).

    The best box is always kept, even below ``min_score``. Boxes of zero area have IoU 0.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in px.
        scores: (N,).
        dets: (N, 5), written in place: row k < K is the k-th box and its decreased score; later rows are not changed.
        iou_threshold: IoU from which the naive and linear methods decrease a score.
        sigma: variance of the gaussian method.
        min_score: boxes whose score falls below this are removed.
        method: 0 naive (to zero), 1 linear (by 1 - overlap), 2 gaussian (by exp(-overlap^2 / sigma)).
        offset: the sides of a box are ``x2 - x1 + offset``.

    Returns:
        (K,), int64 indices of the boxes that are kept, by decreasing score.

    Raises:
        ValueError: for another method.
    """
    if method not in (_NAIVE, _LINEAR, _GAUSSIAN):
        raise ValueError(f"method must be {_NAIVE}, {_LINEAR} or {_GAUSSIAN}, got {method}")
    wide_boxes, scores = widened(boxes, scores)
    scores = scores.clone()
    rest = torch.arange(len(boxes), device=boxes.device)
    kept, kept_scores = [], []
    while len(rest):
        best = int(scores.argmax())
        kept.append(int(rest[best]))
        kept_scores.append(float(scores[best]))
        # Move the first box to the position of the best one, as mmcv does: the order decides between equal scores.
        rest[best], scores[best] = rest[0], scores[0]
        rest, scores = rest[1:], scores[1:]
        overlaps = iou(wide_boxes[kept[-1]], wide_boxes[rest], offset).nan_to_num(0.0)
        scores = scores * _decay(overlaps, iou_threshold, sigma, method)
        order = _without_gaps(scores >= min_score)
        rest, scores = rest[order], scores[order]
    inds = torch.tensor(kept, dtype=torch.int64, device=boxes.device)
    dets[: len(kept), :4] = boxes[inds]
    dets[: len(kept), 4] = torch.tensor(kept_scores, dtype=dets.dtype, device=dets.device)
    return inds


def _decay(overlaps: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Compute score factors (N,) of boxes from their IoU with the best box, ``overlaps`` (N,)."""
    if method == _GAUSSIAN:
        return (-(overlaps**2) / sigma).exp()
    lowered = torch.zeros_like(overlaps) if method == _NAIVE else 1 - overlaps
    return lowered.where(overlaps >= iou_threshold, torch.ones_like(overlaps))


def _without_gaps(stays: Tensor) -> Tensor:
    """Return indices (K,) of the K true entries of (N,); gaps among the first K are filled from the end."""
    count = int(stays.sum())
    order = torch.arange(count, device=stays.device)
    order[~stays[:count]] = stays[count:].nonzero().flatten().flip(0) + count
    return order


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes with the box that suppresses them (``mmcv.ops.nms_match``).

    Args:
        dets: (N, 5), x1, y1, x2, y2 in px and score.
        iou_threshold: IoU from which a box is suppressed by a box with a higher score.

    Returns:
        groups by decreasing best score: the index of the box that is kept, then those of the boxes that it
        suppresses, by decreasing score.
    """
    (dets,) = widened(dets)
    rest = dets[:, 4].argsort(descending=True)
    groups = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        joins = iou(dets[best, :4], dets[rest, :4]) >= iou_threshold
        groups.append([int(best), *rest[joins].tolist()])
        rest = rest[~joins]
    return groups
