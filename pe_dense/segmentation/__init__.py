"""Semantic segmentation on frozen backbones; mask transformers for semantic, instance and panoptic segmentation."""

from pe_dense.segmentation.head import LinearHead, SegmentationProbe, SegmentationSweep, upsampled_cross_entropy
from pe_dense.segmentation.inferencer import PanopticPredictor, SegmentationPredictor
from pe_dense.segmentation.mask_head import EoMTHead, semantic_map
from pe_dense.segmentation.mask_transformer import (
    EoMTOptimWrapperConstructor,
    MaskAnnealingHook,
    MaskTransformerDetector,
    MaskTransformerSegmentor,
    TwoStageWarmupPolyLR,
)
from pe_dense.segmentation.metric import IoUMetric
from pe_dense.segmentation.pmt import PMTHead

__all__ = [
    "EoMTHead",
    "EoMTOptimWrapperConstructor",
    "IoUMetric",
    "LinearHead",
    "MaskAnnealingHook",
    "MaskTransformerDetector",
    "MaskTransformerSegmentor",
    "PMTHead",
    "PanopticPredictor",
    "SegmentationPredictor",
    "SegmentationProbe",
    "SegmentationSweep",
    "TwoStageWarmupPolyLR",
    "semantic_map",
    "upsampled_cross_entropy",
]
