"""Monocular depth estimation on frozen backbones."""

from pe_dense.depth.dpt_head import DINOv2DepthHead, DPTDepthHead, SigLoss
from pe_dense.depth.inferencer import DepthPredictor
from pe_dense.depth.kitti import KITTIDepthDataset
from pe_dense.depth.linear_head import DepthProbe, DepthSweep, LinearDepthHead
from pe_dense.depth.metric import DepthMetric
from pe_dense.depth.transforms import CropBottomCenter, CropBox, GammaBrightnessColor

__all__ = [
    "CropBottomCenter",
    "CropBox",
    "DINOv2DepthHead",
    "DPTDepthHead",
    "DepthMetric",
    "DepthPredictor",
    "DepthProbe",
    "DepthSweep",
    "GammaBrightnessColor",
    "KITTIDepthDataset",
    "LinearDepthHead",
    "SigLoss",
]
