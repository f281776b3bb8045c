"""Spatial alignment: distillation of a backbone from frozen teachers (Perception Encoder, section 5)."""

from pe_dense.distillation.preprocessor import ImagePreprocessor
from pe_dense.distillation.spatial_alignment import SpatialAligner, SpatialDistiller

__all__ = ["ImagePreprocessor", "SpatialAligner", "SpatialDistiller"]
