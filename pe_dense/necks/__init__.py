"""Necks: feature pyramids for single-scale backbones."""

from pe_dense.necks.deta_neck import DETAPyramid
from pe_dense.necks.sam3_neck import SAM3Neck
from pe_dense.necks.simple_fpn import ConvNorm, LayerNorm2d, SimpleFeaturePyramid

__all__ = ["ConvNorm", "DETAPyramid", "LayerNorm2d", "SAM3Neck", "SimpleFeaturePyramid"]
