"""Necks: feature pyramids for single-scale backbones."""

from pe_dense.necks.deta_neck import DETAPyramid
from pe_dense.necks.simple_fpn import ConvNorm, LayerNorm2d, SimpleFeaturePyramid

__all__ = ["ConvNorm", "DETAPyramid", "LayerNorm2d", "SimpleFeaturePyramid"]
