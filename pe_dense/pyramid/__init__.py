"""Feature pyramids from single maps."""

from pe_dense.pyramid.layer_norm import LayerNorm2d
from pe_dense.pyramid.simple import ConvNorm, SimpleFeaturePyramid

__all__ = ["ConvNorm", "LayerNorm2d", "SimpleFeaturePyramid"]
