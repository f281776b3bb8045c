"""Base class of students that are trained with frozen teachers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from mmengine.model import BaseModel
from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.distillation.preprocessor import colors_of, resize
from pe_dense.distillation.teachers.base import Teacher
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


class Student(BaseModel):
    """Base class of distillation models: a student backbone and frozen teachers.

    Teachers are built in ``init_weights``, which MMEngine calls before training and before resuming. They are not
    registered as submodules, so that checkpoints contain only the student and frozen weights are not wrapped by DDP or
    sharded by FSDP; they move between devices together with the model. Modules outside ``backbone`` are only used in
    training.

    Args:
        backbone: config of the student, a :class:`~pe_dense.backbones.PETower`. A class token is kept but not used
            in any loss.
        image_size: side of the input of the student in pixels, a multiple of its patch size.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with the initial weights of the student.
        data_preprocessor: config of the data preprocessor;
            :class:`~pe_dense.distillation.preprocessor.ImagePreprocessor` by default.

    Attributes:
        grid: rows and columns of tokens.
        teachers: teachers by name.

    Raises:
        ValueError: if the image size is not a multiple of the patch size, or ``init_cfg`` is invalid.
    """

    def __init__(self, backbone: dict, image_size: int, init_cfg: dict, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor or dict(type="pe_dense.ImagePreprocessor"), init_cfg)
        if set(init_cfg) != {"type", "checkpoint"} or init_cfg["type"] != "Pretrained":
            raise InputError(f"init_cfg must be dict(type='Pretrained', checkpoint=...), got {init_cfg}")
        self.backbone: Backbone = MODELS.build(backbone)
        self.image_size = image_size
        self.grid = self.backbone.grid_of(torch.empty(0, 3, image_size, image_size))
        self.teachers: dict[str, Teacher] = {}

    def init_weights(self) -> None:
        """Load the weights of the student and build the teachers.

        Raises:
            ValueError, CheckpointError, FileNotFoundError: if weights are missing or do not match, or teachers are
                not compatible with the student.
        """
        if self._is_init:
            return
        self.teachers = self.load(self.init_cfg["checkpoint"])
        device = next(self.parameters()).device
        for teacher in self.teachers.values():
            teacher.to(device)
        self._is_init = True

    @abstractmethod
    def load(self, checkpoint: str) -> dict[str, Teacher]:
        """Load the student's weights from a path or ``hf://`` name and build its teachers."""

    @abstractmethod
    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Compute losses (names beginning with 'loss') and other scalars to log, for images (B, 3, H, W) in [0, 1]."""

    def forward(self, images: Tensor, mode: str = "tensor") -> dict[str, Tensor] | Tensor:
        """Compute the losses or the tokens of the student.

        Args:
            images: (B, 3, H, W), RGB in [0, 1], square.
            mode: 'loss', or 'tensor' for the tokens of the student.

        Returns:
            the result of :meth:`loss`, or tokens (B, N, C).
        """
        return self.loss(images) if mode == "loss" else self.tokens(images)

    def tokens(self, images: Tensor, **mask: Tensor | None) -> Tensor:
        """Compute the patch tokens (B, N, C) of the last layer of the student, without a class token.

        Args:
            images: (B, 3, H, W), RGB in [0, 1].
            mask: ``mask`` and ``mask_token``, see :meth:`~pe_dense.backbones.base.Backbone.iter_tokens`.
        """
        images = resize(images, self.image_size, colors_of(self.backbone))
        return self.backbone.forward_intermediates(images, [-1], output_fmt="NLC", **mask)[0]

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Compute feature maps of student and teachers, for visualization.

        Args:
            images: (B, 3, S, S), RGB, ``(x / 255 - 0.5) / 0.5``.

        Returns:
            maps (B, C, h, w) on the grid of the student: 'student', computed without masking, and each teacher by name.
        """
        images = images * 0.5 + 0.5
        tokens = {"student": self.tokens(images)}
        tokens.update({name: teacher(images, self.grid) for name, teacher in self.teachers.items()})
        return {name: values.transpose(1, 2).unflatten(2, self.grid) for name, values in tokens.items()}

    def _apply(self, fn: Callable, recurse: bool = True) -> Student:
        for teacher in self.teachers.values():
            teacher._apply(fn)
        return super()._apply(fn, recurse)
