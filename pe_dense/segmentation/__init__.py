"""Semantic segmentation on frozen backbones."""

from pe_dense.segmentation.head import LinearHead, SegmentationProbe, SegmentationSweep
from pe_dense.segmentation.inferencer import SegmentationPredictor
from pe_dense.segmentation.metric import IoUMetric
from pe_dense.segmentation.upsampled_loss import upsampled_cross_entropy

__all__ = [
    "IoUMetric",
    "LinearHead",
    "SegmentationPredictor",
    "SegmentationProbe",
    "SegmentationSweep",
    "upsampled_cross_entropy",
]
