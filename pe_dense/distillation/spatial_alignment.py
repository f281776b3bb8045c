"""Fine-tune a Core tower to a Spatial tower (Spatial alignment), and distill small Spatial towers from a large one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pe_dense.backbones.build import embed_dim_of
from pe_dense.backbones.text_space import pooled_dim_of
from pe_dense.distillation.losses import cosine, effective_rank, locality_loss, pairwise_loss, target_cosine
from pe_dense.distillation.student import Student
from pe_dense.distillation.teachers.base import Teacher, TowerTeacher
from pe_dense.registry import MODELS
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import InputError


def block_mask(
    batch: int, grid: tuple[int, int], ratio: float, block_size: int = 2, generator: torch.Generator | None = None
) -> Tensor:
    """Sample a random block-wise mask of patches for each image.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2: 75 % of the tokens in blocks of 2 x 2.

    Args:
        batch: number of images B.
        grid: rows H and columns W of patches.
        ratio: ratio of masked blocks in [0, 1]; the same number of blocks, rounded, is masked in every image. If the
            block size does not divide the grid, blocks at the edge are cut off but counted as whole blocks.
        block_size: side of a block in patches.
        generator: random number generator on the CPU; the default generator of PyTorch if None. The mask of a seed
            does not depend on the device.

    Returns:
        (B, H, W), bool, on the CPU; True for masked patches.
    """
    rows, columns = (-(-side // block_size) for side in grid)
    order = torch.rand(batch, rows * columns, generator=generator).argsort(1).argsort(1)
    blocks = (order < round(ratio * rows * columns)).view(batch, rows, columns)
    mask = blocks.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2)
    return mask[:, : grid[0], : grid[1]]


@MODELS.register_module()
class SpatialAligner(Student):
    """Spatial alignment of a tower, with a middle layer of the initial tower and SAM as teachers.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2 and appendix B.3.1. The student is the Core tower with
    LayerScale and stochastic depth, and 75 % of its patches are masked. The tokens of its last layer, masked or not,
    are aligned with those of a middle layer of the initial tower, and their pairwise similarities with those of the
    mask logits of SAM.

    Args:
        backbone, image_size, init_cfg, data_preprocessor: see :class:`~pe_dense.distillation.student.Student`. If the
            backbone has LayerScale and the checkpoint does not, its initial value is kept, so the student differs
            from the teacher at the start.
        core: arguments of :class:`~pe_dense.distillation.teachers.base.TowerTeacher` for the initial tower, without
            checkpoint and image size, which are those of the student.
        sam: config of the SAM teacher, a :class:`~pe_dense.distillation.teachers.sam.SAMTeacher`.
        objects: config of a third teacher that is not part of the published stage, without checkpoint:
            :class:`~pe_dense.distillation.teachers.object_crops.ObjectCropTeacher`. A linear layer that is only used in
            training projects the student's tokens to its embeddings.
        core_weight, locality_weight, objects_weight: weights of the losses; a teacher with weight 0 is not built.
        temperature: see :func:`~pe_dense.distillation.losses.locality_loss`.
        mask_ratio, mask_block_size: see :func:`~pe_dense.distillation.spatial_alignment.block_mask`.

    Raises:
        ValueError: if the mask ratio is not in [0, 1), a weight is negative or all are 0, the temperature is not
            positive, or as in the base class.
    """

    def __init__(
        self,
        backbone: dict,
        image_size: int,
        init_cfg: dict,
        core: dict,
        sam: dict,
        objects: dict | None = None,
        core_weight: float = 1.0,
        locality_weight: float = 1.0,
        objects_weight: float = 1.0,
        temperature: float = 20.0,
        mask_ratio: float = 0.75,
        mask_block_size: int = 2,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(backbone, image_size, init_cfg, data_preprocessor)
        if not 0.0 <= mask_ratio < 1.0:
            raise InputError(f"mask_ratio {mask_ratio} is not in [0, 1)")
        weights = dict(core_weight=core_weight, locality_weight=locality_weight)
        if objects is not None:
            weights["objects_weight"] = objects_weight
        if min(weights.values()) < 0 or not any(weights.values()):
            given = ", ".join(f"{name}={value}" for name, value in weights.items())
            raise InputError(f"loss weights must be at least 0 and not all 0, got {given}")
        if temperature <= 0:
            raise InputError(f"temperature must be above 0, got {temperature}")
        self.core = core
        self.sam = sam
        self.objects = objects if objects_weight else None
        self.core_weight = core_weight
        self.locality_weight = locality_weight
        self.objects_weight = objects_weight
        self.temperature = temperature
        self.mask_ratio = mask_ratio
        self.mask_block_size = mask_block_size
        self.mask_token = nn.Parameter(torch.empty(self.backbone.out_channels)) if mask_ratio else None
        if mask_ratio:
            nn.init.normal_(self.mask_token, std=0.02)
        if self.objects is not None:
            with torch.device("meta"):
                channels = pooled_dim_of(MODELS.build(self.objects["tower"]))
            self.projection = nn.Linear(self.backbone.out_channels, channels)

    def load(self, checkpoint: str) -> dict[str, Teacher]:
        """See :class:`Student`; the file is read once for student and teacher."""
        content = read_checkpoint(checkpoint)
        self.backbone.load_pretrained(checkpoint, content, add_layer_scale=True)
        teachers: dict[str, Teacher] = {}

        def same_weights(config):
            return {} if "checkpoint" in config else dict(checkpoint=checkpoint, content=content)

        if self.core_weight:
            core = TowerTeacher(**self.core, image_size=self.image_size, **same_weights(self.core))
            core.require_grid(self.grid)
            teachers["core"] = core
        if self.locality_weight:
            teachers["sam"] = MODELS.build(self.sam)
        if self.objects is not None:
            teachers["objects"] = MODELS.build(
                {"image_size": self.image_size, **self.objects, **same_weights(self.objects)}
            )
        return teachers

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """See :class:`Student`."""
        # Run the teachers first, so that their temporary memory is released before the activations of the student.
        wanted = {name: teacher(images, self.grid) for name, teacher in self.teachers.items()}
        student = self.masked_tokens(images)
        result = {}
        if "core" in wanted:
            similarity = cosine(student, wanted["core"])
            result["loss_core"] = -self.core_weight * similarity
            result["cosine"] = similarity.detach()
        if "sam" in wanted:
            result["loss_locality"] = self.locality_weight * locality_loss(student, wanted["sam"], self.temperature)
        if "objects" in wanted:
            similarity = target_cosine(self.projection(student), wanted["objects"])
            result["loss_objects"] = -self.objects_weight * similarity
            result["object_cosine"] = similarity.detach()
        result["effective_rank"] = effective_rank(student)
        return result

    def masked_tokens(self, images: Tensor) -> Tensor:
        """Compute tokens as :meth:`tokens` does, with a random mask of patches."""
        if self.mask_token is None:
            return self.tokens(images)
        mask = block_mask(len(images), self.grid, self.mask_ratio, self.mask_block_size)
        return self.tokens(images, mask=mask.to(images.device), mask_token=self.mask_token)


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
