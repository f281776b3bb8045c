"""Frozen teachers for distillation."""

from pe_dense.distillation.teachers.base import TowerTeacher
from pe_dense.distillation.teachers.instance_masks import InstanceMaskTeacher
from pe_dense.distillation.teachers.object_crops import ObjectCropTeacher
from pe_dense.distillation.teachers.sam import SAMTeacher

__all__ = ["InstanceMaskTeacher", "ObjectCropTeacher", "SAMTeacher", "TowerTeacher"]
