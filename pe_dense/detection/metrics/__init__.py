"""Average precision, as fast as C++ makes it."""

from pe_dense.detection.metrics.coco_metric import CocoMetric
from pe_dense.detection.metrics.lvis_metric import LVISMetric

__all__ = ["CocoMetric", "LVISMetric"]
