"""Semantic segmentation on frozen towers."""

from pe_dense.segmentation.head import LinearHead
from pe_dense.segmentation.iou import IoUMetric
from pe_dense.segmentation.probe import SegmentationProbe, SegmentationSweep
from pe_dense.segmentation.upsampled_loss import upsampled_cross_entropy

__all__ = ["IoUMetric", "LinearHead", "SegmentationProbe", "SegmentationSweep", "upsampled_cross_entropy"]
