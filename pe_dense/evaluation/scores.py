"""Scores of predicted label maps and boxes: mean IoU with and without matching of clusters to classes, CorLoc."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pe_dense.utils.errors import InputError

IGNORED = 255
_BOX_EPS = 1e-7  # in the denominator of the IoU, as in TokenCut and LOST


def count_pairs(
    predicted: Tensor, truth: Tensor, num_predicted: int, num_classes: int, ignore: Sequence[int] = (IGNORED,)
) -> Tensor:
    """Count how often each predicted label occurs with each class.

    Args:
        predicted: labels 0..P-1, of any shape.
        truth: classes 0..K-1, or a value of ``ignore``, of the same shape.
        num_predicted: number P of predicted labels.
        num_classes: number K of classes.
        ignore: values of ``truth`` that are not counted.

    Returns:
        (P, K) int64.

    Raises:
        ValueError: if ``truth`` has other values.
    """
    predicted, truth = predicted.flatten().long(), truth.flatten().long()
    kept = torch.ones_like(truth, dtype=torch.bool)
    for value in ignore:
        kept &= truth != value
    predicted, truth = predicted[kept], truth[kept]
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < num_classes:
        raise InputError(
            f"labels range from {int(truth.min())} to {int(truth.max())}, but there are {num_classes} classes: "
            f"allowed are 0..{num_classes - 1} and the ignored values {list(ignore)}"
        )
    counts = torch.bincount(predicted * num_classes + truth, minlength=num_predicted * num_classes)
    return counts.view(num_predicted, num_classes)


def iou_matrix(counts: Tensor) -> Tensor:
    """Compute the IoU of every predicted label with every class: (P, K) -> (P, K) float64; 0 for empty unions."""
    counts = counts.double()
    unions = counts.sum(1, keepdim=True) + counts.sum(0, keepdim=True) - counts
    return counts / unions.clamp(min=1)


def mean_iou(counts: Tensor) -> float:
    """Compute the mean IoU of K classes: (K, K) counts; a class that neither occurs nor is predicted counts as 0."""
    return float(iou_matrix(counts).diagonal().mean())


def hungarian_miou(counts: Tensor) -> float:
    """Compute the mean IoU after one-to-one matching of predicted labels to classes by their IoU.

    Args:
        counts: (P, K), see :func:`count_pairs`. Labels that are matched to no class count as class 0, as in the code of
            Leopart (arXiv 2204.13101) and its successors.
    """
    rows, columns = linear_sum_assignment(iou_matrix(counts).cpu().numpy(), maximize=True)
    assigned = torch.zeros(len(counts), dtype=torch.long, device=counts.device)
    assigned[torch.from_numpy(rows)] = torch.from_numpy(columns).to(counts.device)
    return _merged_miou(counts, assigned)


def many_to_one_miou(counts: Tensor, by: str = "precision") -> float:
    """Compute the mean IoU after assigning each of many clusters to a class.

    Args:
        counts: (P, K), see :func:`count_pairs`.
        by: assign a cluster to the class of highest 'precision' (share of its pixels) or 'iou'.

    Raises:
        ValueError: for another criterion.
    """
    if by not in ("precision", "iou"):
        raise InputError(f"by={by!r} is not 'precision' or 'iou'")
    return _merged_miou(counts, (counts if by == "precision" else iou_matrix(counts)).argmax(dim=1))


def _merged_miou(counts: Tensor, assigned: Tensor) -> float:
    """Compute the mean IoU of clusters (P, K) of which each is assigned to a class, (P,)."""
    merged = counts.new_zeros(counts.shape[1], counts.shape[1]).index_add_(0, assigned, counts)
    return mean_iou(merged)


def box_ious(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the IoU of one box with N boxes (x0, y0, x1, y1): (4,), (N, 4) -> (N,)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    overlap = sides.clip(min=0).prod(axis=1)
    areas = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return overlap / (areas - overlap + _BOX_EPS)


def corloc(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], threshold: float = 0.5) -> float:
    """Compute CorLoc, the share of images whose box has an IoU of at least 0.5 with any ground-truth box.

    Args:
        found: one box (4,) per image.
        truth: boxes (N, 4) per image, N at least 1.
        threshold: minimum IoU.
    """
    pairs = zip(found, truth, strict=True)
    return float(np.mean([box_ious(np.asarray(box, float), boxes).max() >= threshold for box, boxes in pairs]))
