"""Monocular depth estimation on frozen backbones."""

from pe_dense.depth.dinov2_head import DINOv2DepthHead, SigLoss
from pe_dense.depth.dpt_head import DPTDepthHead
from pe_dense.depth.inferencer import DepthPredictor
from pe_dense.depth.linear_head import DepthProbe, DepthSweep, LinearDepthHead
from pe_dense.depth.metric import DepthMetric
from pe_dense.depth.transforms import CropBox, GammaBrightnessColor

__all__ = [
    "CropBox",
    "DINOv2DepthHead",
    "DPTDepthHead",
    "DepthMetric",
    "DepthPredictor",
    "DepthProbe",
    "DepthSweep",
    "GammaBrightnessColor",
    "LinearDepthHead",
    "SigLoss",
]
