"""Feature pyramids from single maps."""

from pe_dense.pyramid.deta import DETAPyramid
from pe_dense.pyramid.layer_norm import LayerNorm2d
from pe_dense.pyramid.simple import ConvNorm, SimpleFeaturePyramid

__all__ = ["ConvNorm", "DETAPyramid", "LayerNorm2d", "SimpleFeaturePyramid"]
