"""Spatial alignment: distillation of a backbone from frozen teachers (Perception Encoder, section 5)."""

from pe_dense.distillation.distiller import SpatialDistiller
from pe_dense.distillation.spatial_alignment import SpatialAligner
from pe_dense.distillation.student import ImagePreprocessor

__all__ = ["ImagePreprocessor", "SpatialAligner", "SpatialDistiller"]
