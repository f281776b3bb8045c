"""Replacement of ``panopticapi``, which mmdet needs for COCO's panoptic format and metric and no registry offers.

It provides what mmdet and the format need, with the names of the original (``panopticapi.utils`` and
``panopticapi.evaluation``): the coding of segment ids as colors, and the counts from which panoptic quality (PQ) is
computed. mmdet matches the segments.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

VOID = 0  # id of pixels without a segment
OFFSET = 256**3  # above every id
_BASE = np.array([1, 256, 256**2], np.int32)  # of red, green and blue


def rgb2id(color: np.ndarray) -> np.ndarray:
    """Decode segment ids (...) int32 from colors (..., 3) uint8, RGB: R + 256 G + 65536 B."""
    return np.asarray(color)[..., :3].astype(np.int32) @ _BASE


def id2rgb(ids: np.ndarray) -> np.ndarray:
    """Encode segment ids (...) below 256^3 as colors (..., 3) uint8, RGB."""
    return (np.asarray(ids)[..., None].astype(np.int32) // _BASE % 256).astype(np.uint8)


@dataclass
class PQStatCat:
    """Counts of one category: matched segments and the sum of their IoU, false positives and false negatives."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


class PQStat:
    """Counts of all categories, by their id."""

    def __init__(self) -> None:
        self.pq_per_cat: defaultdict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(self, categories: dict[int, dict], isthing: bool | None) -> tuple[dict, dict[int, dict]]:
        """Average panoptic quality over the categories that occur in the ground truth or in the predictions.

        PQ = SQ x RQ, the mean IoU of matched segments (SQ) times TP / (TP + FP / 2 + FN / 2) (RQ).

        Source: Panoptic Segmentation (arXiv 1801.00868), section 4.

        Args:
            categories: entries of the annotation file by id.
            isthing: only categories of things or of stuff; None for all.

        Returns:
            ``pq``, ``sq`` and ``rq`` from 0 to 1 with the number ``n`` of categories that were averaged (NaN if there
            is none), and the same by category, 0 for those that do not occur.
        """
        by_category, occurring = {}, []
        for category, entry in categories.items():
            if isthing is not None and bool(entry["isthing"]) != isthing:
                continue
            counts = self.pq_per_cat[category]
            both = counts.tp + (counts.fp + counts.fn) / 2
            sq = counts.iou / counts.tp if counts.tp else 0.0
            rq = counts.tp / both if both else 0.0
            by_category[category] = dict(pq=sq * rq, sq=sq, rq=rq)
            if both:
                occurring.append(by_category[category])
        keys = ("pq", "sq", "rq")
        mean = {key: float(np.mean([one[key] for one in occurring])) if occurring else np.nan for key in keys}
        return dict(mean, n=len(occurring)), by_category
