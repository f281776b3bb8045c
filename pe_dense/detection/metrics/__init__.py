"""COCO and LVIS average precision on faster-coco-eval."""

from pe_dense.detection.metrics.coco import CocoMetric
from pe_dense.detection.metrics.lvis import LVISMetric

__all__ = ["CocoMetric", "LVISMetric"]
