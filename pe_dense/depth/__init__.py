"""Monocular depth estimation on frozen backbones."""

from pe_dense.depth.dpt_head import CropBox, DINOv2DepthHead, DPTDepthHead, GammaBrightnessColor, SigLoss
from pe_dense.depth.inferencer import DepthPredictor
from pe_dense.depth.linear_head import DepthProbe, DepthSweep, LinearDepthHead
from pe_dense.depth.metric import DepthMetric

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
