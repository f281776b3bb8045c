"""Compute precision at fixed recalls, maximum recall, and their means.

Notation: T = 10 IoU thresholds 0.5, 0.55 ... 0.95; R = 101 recalls 0, 0.01 ... 1; K categories; A = 4 ranges of area:
all, small (up to 32^2 pixels), medium (up to 96^2), large; M limits on the number of detections.
"""

from collections.abc import Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster


def precision_recall(
    truth: COCO,
    detections: list[dict],
    categories: list[int],
    iou_type: str,
    *,
    max_detections: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute interpolated precision and maximum recall with faster-coco-eval.

    Args:
        truth: ground truth, with masks as ``rle``.
        detections: result dicts with ``area`` and with ``bbox`` or ``rle``; an ``id`` is added.
        categories: ids of the K categories.
        iou_type: ``bbox`` or ``segm``.
        max_detections: M increasing limits on the detections per category and image. Precision uses the last one.

    Returns:
        precision T x R x K x A and recall T x K x A x M; -1 without annotations.
    """
    for number, detection in enumerate(detections):
        detection["id"] = number + 1
    evaluator = COCOeval_faster(
        truth,
        COCO(dict(images=truth.dataset["images"], categories=truth.dataset["categories"], annotations=detections)),
        iou_type,
        print_function=_silent,
        rle_iou_max_workers=1,
    )
    evaluator.params.catIds = categories
    evaluator.params.maxDets = list(max_detections)
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"][..., -1], evaluator.eval["recall"]


def means(precision: np.ndarray) -> dict[str, float]:
    """Compute the mean precisions that COCO and LVIS have in common.

    Args:
        precision: T x R x K x A.

    Returns:
        means by name: the empty name for all, ``50`` and ``75`` for one IoU threshold, ``s``, ``m`` and ``l`` for one
        range of area.
    """
    return {
        "": mean(precision[..., 0]),
        "50": mean(precision[0, ..., 0]),
        "75": mean(precision[5, ..., 0]),
        "s": mean(precision[..., 1]),
        "m": mean(precision[..., 2]),
        "l": mean(precision[..., 3]),
    }


def mean(values: np.ndarray) -> float:
    """Compute the mean of all valid values, which are in [0, 1]; -1 if all are -1."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def _silent(*_) -> None:
    """Discard the evaluator's progress messages, one per category."""
