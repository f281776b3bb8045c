"""Semantic segmentation on frozen backbones; mask transformers for semantic, instance and panoptic segmentation."""

from pe_dense.segmentation.head import LinearHead, SegmentationProbe, SegmentationSweep
from pe_dense.segmentation.inferencer import SegmentationPredictor
from pe_dense.segmentation.mask_head import EoMTHead, semantic_map
from pe_dense.segmentation.mask_schedule import (
    EoMTOptimWrapperConstructor,
    MaskAnnealingHook,
    TwoStageWarmupPolyLR,
)
from pe_dense.segmentation.mask_transformer import MaskTransformerDetector, MaskTransformerSegmentor
from pe_dense.segmentation.metric import IoUMetric
from pe_dense.segmentation.pmt import PMTHead
from pe_dense.segmentation.upsampled_loss import upsampled_cross_entropy

__all__ = [
    "EoMTHead",
    "EoMTOptimWrapperConstructor",
    "IoUMetric",
    "LinearHead",
    "MaskAnnealingHook",
    "MaskTransformerDetector",
    "MaskTransformerSegmentor",
    "PMTHead",
    "SegmentationPredictor",
    "SegmentationProbe",
    "SegmentationSweep",
    "TwoStageWarmupPolyLR",
    "semantic_map",
    "upsampled_cross_entropy",
]
