"""Small Spatial towers from a large one."""

from __future__ import annotations

from torch import Tensor, nn

from pe_dense.backbones.build import embed_dim_of
from pe_dense.distillation.losses import cosine, effective_rank, pairwise_loss
from pe_dense.distillation.student import Student
from pe_dense.distillation.teachers.backbone import TowerTeacher
from pe_dense.distillation.teachers.base import Teacher
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class SpatialDistiller(Student):
    """A tower of any width that learns another's last layer.

    Source: Perception Encoder's README names a mixture of pairwise token similarity and direct feature distillation,
    without further detail. Here: :func:`~pe_dense.distillation.losses.pairwise_loss`, and the cosine similarity of the
    teacher's tokens and the student's, brought to the teacher's width by a linear map that only training needs.

    Args:
        backbone, image_size, init_cfg, data_preprocessor: as of :class:`~pe_dense.distillation.student.Student`.
        teacher: arguments of :class:`~pe_dense.distillation.teachers.backbone.TowerTeacher`; its image size may be
        another,
            its grid of tokens must be the student's.
        pairwise_weight, feature_weight: of the losses.

    Raises:
        ValueError: for negative weights or none at all, or as the student.
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
            raise InputError(f"Weights of losses: pairwise_weight={pairwise_weight}, feature_weight={feature_weight}")
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
