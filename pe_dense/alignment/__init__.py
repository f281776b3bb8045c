"""Spatial alignment: training a tower by frozen teachers (Perception Encoder, section 5)."""

from pe_dense.alignment.aligner import SpatialAligner
from pe_dense.alignment.distiller import SpatialDistiller
from pe_dense.alignment.finite_loss_hook import FiniteLossHook
from pe_dense.alignment.images import ImagePreprocessor
from pe_dense.alignment.sam_teacher import SAMTeacher
from pe_dense.alignment.skipped_images_hook import SkippedImagesHook
from pe_dense.alignment.tower_teacher import TowerTeacher

__all__ = [
    "FiniteLossHook",
    "ImagePreprocessor",
    "SAMTeacher",
    "SkippedImagesHook",
    "SpatialAligner",
    "SpatialDistiller",
    "TowerTeacher",
]
