"""Distillation of small Spatial towers from a large one."""

from __future__ import annotations

from torch import Tensor, nn

from pe_dense.backbones.build import embed_dim_of
from pe_dense.distillation.losses import cosine, effective_rank, pairwise_loss
from pe_dense.distillation.student import Student
from pe_dense.distillation.teachers.base import Teacher, TowerTeacher
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class SpatialDistiller(Student):
    """Distill the last layer of a teacher tower into a student of any width.

    Source: the README of the Perception Encoder mentions a combination of pairwise token similarity and direct feature
    distillation, without details. Here these are :func:`~pe_dense.distillation.losses.pairwise_loss` and the cosine
    similarity between the tokens of the teacher and those of the student, projected to the width of the teacher by a
    linear layer that is only used in training.

    Args:
        backbone, image_size, init_cfg, data_preprocessor: see :class:`~pe_dense.distillation.student.Student`.
        teacher: arguments of :class:`~pe_dense.distillation.teachers.base.TowerTeacher`; its image size may
            differ from that of the student, but the token grids must be the same.
        pairwise_weight, feature_weight: weights of the losses.

    Raises:
        ValueError: if a weight is negative or both are 0, or as in the base class.
    """

    def __init__(
        self,
        backbone: dict,
        image_size: int,
        init_cfg: dict,
        teacher: dict,
        pairwise_weight: float = 1.0,
        feature_weight: float = 1.0,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, image_size, init_cfg, data_preprocessor)
        if min(pairwise_weight, feature_weight) < 0 or pairwise_weight == feature_weight == 0:
            raise InputError(
                f"loss weights must be at least 0 and not all 0, got pairwise_weight={pairwise_weight}, "
                f"feature_weight={feature_weight}"
            )
        self.teacher = teacher
        self.pairwise_weight = pairwise_weight
        self.feature_weight = feature_weight
        self.projection = nn.Linear(self.backbone.out_channels, embed_dim_of(teacher["tower"]))

    def load(self, checkpoint: str) -> dict[str, Teacher]:
        """See :class:`Student`."""
        self.backbone.load_pretrained(checkpoint)
        teacher = TowerTeacher(**self.teacher)
        teacher.require_grid(self.grid)
        return {"teacher": teacher}

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """See :class:`Student`."""
        teacher, student = self.teachers["teacher"](images, self.grid), self.tokens(images)
        similarity = cosine(self.projection(student), teacher)
        return dict(
            loss_pairwise=self.pairwise_weight * pairwise_loss(student, teacher),
            loss_feature=-self.feature_weight * similarity,
            cosine=similarity.detach(),
            effective_rank=effective_rank(student),
        )
