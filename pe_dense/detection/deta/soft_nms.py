"""Soft non-maximum suppression without a loop over boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pe_dense.utils.errors import InputError


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float = 0.7,
    min_score: float = 0.0,
    quad_scale: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Lower the score of a box by each better box of its class that it overlaps, by ``(1 - IoU) ** quad_scale``.

    The result is that of repeatedly taking the best remaining box (Soft-NMS, arXiv 1704.04503, with the decay "quad" of
    the published DETA). Since groups of boxes that are not connected by overlaps are independent, a step takes the best
    box of every group, so the number of steps is the size of the largest group.

    Classes are separated by shifting boxes by their label in float32, as in the published code, because the rounding
    of large coordinates moves some overlaps across the threshold.

    Args:
        boxes: (N, 4), x1, y1, x2, y2 in px.
        scores: (N,), from 0 to 1.
        labels: (N,), from 0.
        iou_threshold: overlap above which a score is lowered.
        min_score: boxes whose lowered score is not above it are dropped, except for the best of all boxes, which the
            published code always keeps.
        quad_scale: exponent of the decay; the published code calls it so, with 0.5 as its default.

    Returns:
        indices (K,) of the boxes that are kept, best first, and their lowered scores (K,).

    Raises:
        InputError: if scores are negative or NaN, as those of a model that has diverged.
    """
    if not (scores >= 0).all():
        raise InputError(f"the lowest score is {scores.min().item():g}; soft-NMS needs scores from 0 to 1")
    first, second, overlaps = overlapping_pairs(shift_by_class(boxes.float(), labels), iou_threshold)
    pairs = [x.cpu().numpy() for x in (first, second, (1 - overlaps) ** quad_scale)]
    lowered = lower_scores(scores.float().cpu().numpy(), *pairs)
    lowered, order = torch.from_numpy(lowered).to(boxes.device).sort(descending=True, stable=True)
    kept = lowered > min_score
    kept[:1] = True
    return order[kept], lowered[kept]


def lower_scores(scores: np.ndarray, first: np.ndarray, second: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """Compute the scores (N,) at which boxes are selected, best first, when each lowers those of its later partners.

    Args:
        scores: (N,), not negative.
        first, second: (P,) indices of the pairs.
        decay: (P,) factors of the worse box's score.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    square = (len(scores), len(scores))
    graph = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=square)
    count, crowd = connected_components(graph, directed=False)
    size = np.bincount(crowd, minlength=count)

    # Boxes are sorted by the size of their group ("crowd"), so groups that still have boxes come first at any step.
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(count)
    order = np.argsort(rank[crowd], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    crowd, size = rank[crowd][order], np.sort(size)[::-1]
    begin = np.cumsum(size) - size
    first, second = place[first], place[second]
    both_ways = (np.append(first, second), np.append(second, first))
    links = coo_matrix((np.append(decay, decay), both_ways), shape=square).tocsr()
    row, target, decay = links.indptr, links.indices, links.data

    remaining = scores[order]
    final = remaining.copy()  # final already for boxes without overlaps
    for step in range(size[0] if count and size[0] > 1 else 0):
        crowds = np.searchsorted(-size, -step)  # larger than the number of boxes selected from them
        boxes = begin[crowds] if crowds < count else len(order)
        top = np.maximum.reduceat(remaining[:boxes], begin[:crowds])
        best = np.flatnonzero(remaining[:boxes] == top[crowd[:boxes]])
        taken = np.empty(crowds, dtype=np.int64)
        taken[crowd[best[::-1]]] = best[::-1]  # the first of equal ones, as `argmax`
        final[taken], remaining[taken] = top, -1  # below any score
        length = row[taken + 1] - row[taken]
        link = np.repeat(row[taken] - np.cumsum(length) + length, length) + np.arange(length.sum())
        link = link[remaining[target[link]] >= 0]
        remaining[target[link]] *= decay[link]
    return final[place]


def shift_by_class(boxes: Tensor, labels: Tensor) -> Tensor:
    """Shift the boxes (N, 4) of each label (N,), so that boxes of different labels do not overlap."""
    if not len(boxes):
        return boxes
    return boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]


def overlapping_pairs(boxes: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find all pairs of boxes that overlap by more than a threshold.

    Boxes are sorted by their left side: a partner to the right must begin within the first ``1 - iou_threshold`` of a
    box's width, so only a few neighbors of each box have to be compared.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        iou_threshold: from 0 to 1.

    Returns:
        indices (P,) and (P,) of the pairs, each pair once, and their IoU (P,).
    """
    order = boxes[:, 0].argsort()
    boxes = boxes[order]
    left, right = boxes[:, 0].contiguous(), boxes[:, 2]
    # The slack of 1e-3 covers the rounding of an IoU.
    last = torch.searchsorted(left, right - (iou_threshold - 1e-3) * (right - left), right=True)
    begin = torch.arange(1, len(boxes) + 1, device=boxes.device)
    counts = (last - begin).clamp(min=0)
    first = torch.arange(len(boxes), device=boxes.device).repeat_interleave(counts)
    within = torch.arange(len(first), device=boxes.device) - (counts.cumsum(0) - counts)[first]
    second = begin[first] + within
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low = torch.maximum(boxes[first, :2], boxes[second, :2])
    high = torch.minimum(boxes[first, 2:], boxes[second, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    overlaps = shared / (areas[first] + areas[second] - shared)
    found = overlaps > iou_threshold
    return order[first[found]], order[second[found]], overlaps[found]
