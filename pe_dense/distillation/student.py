"""A tower that learns from frozen teachers."""

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
    """Base of the models that train a tower by teachers.

    Teachers are made in ``init_weights``, which MMEngine calls before training and before it resumes. They are no
    modules of the model, so that checkpoints hold the student alone and nothing wraps or shards what never learns; they
    move with it between devices. Whatever is not in ``backbone`` is of use in training only.

    Args:
        backbone: config of the student, a :class:`~pe_dense.backbones.PETower`. A class token is kept but takes no
        part in
            a loss: teachers have none to compare it with.
        image_size: side in pixels of the images that it sees, a multiple of its patch size.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, where its weights start.
        data_preprocessor: config; :class:`~pe_dense.distillation.preprocessor.ImagePreprocessor` by default.

    Attributes:
        grid: rows and columns of tokens.
        teachers: by name.

    Raises:
        ValueError: for an image size that does not fit.
    """

    def __init__(self, backbone: dict, image_size: int, init_cfg: dict, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor or dict(type="pe_dense.ImagePreprocessor"), init_cfg)
        if set(init_cfg) != {"type", "checkpoint"} or init_cfg["type"] != "Pretrained":
            raise InputError(f"A student starts from init_cfg=dict(type='Pretrained', checkpoint=...), got {init_cfg}")
        self.backbone: Backbone = MODELS.build(backbone)
        self.image_size = image_size
        self.grid = self.backbone.grid_of(torch.empty(0, 3, image_size, image_size))
        self.teachers: dict[str, Teacher] = {}

    def init_weights(self) -> None:
        """Load the student and make the teachers.

        Raises:
            ValueError, CheckpointError, FileNotFoundError: for weights that are missing or do not fit, or teachers
                that do not fit the student.
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
        """Load the student's weights from a path or ``hf://`` name and make its teachers."""

    @abstractmethod
    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Losses (names that begin with 'loss') and other scalars for the log, of images (B, 3, H, W) in [0, 1]."""

    def forward(self, images: Tensor, mode: str = "tensor") -> dict[str, Tensor] | Tensor:
        """Args:
            images: (B, 3, H, W), RGB between 0 and 1, square.
            mode: 'loss', or 'tensor' for the student's tokens.

        Returns:
            what :meth:`loss` gives, or (B, N, C).
        """
        return self.loss(images) if mode == "loss" else self.tokens(images)

    def tokens(self, images: Tensor, **mask: Tensor | None) -> Tensor:
        """The student's last layer without its class token, (B, N, C).

        Args:
            images: (B, 3, H, W), RGB between 0 and 1.
            mask: ``mask`` and ``mask_token`` as of :meth:`~pe_dense.backbones.base.Backbone.iter_tokens`.
        """
        images = resize(images, self.image_size, colors_of(self.backbone))
        return self.backbone.forward_intermediates(images, [-1], output_fmt="NLC", **mask)[0]

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What student and teachers make of images, for pictures.

        Args:
            images: (B, 3, S, S), RGB, ``(x / 255 - 0.5) / 0.5``.

        Returns:
            maps (B, C, h, w) on the student's grid: 'student', which sees all patches, and each teacher's by its name.
        """
        images = images * 0.5 + 0.5
        tokens = {"student": self.tokens(images)}
        tokens.update({name: teacher(images, self.grid) for name, teacher in self.teachers.items()})
        return {name: values.transpose(1, 2).unflatten(2, self.grid) for name, values in tokens.items()}

    def _apply(self, fn: Callable, recurse: bool = True) -> Student:
        for teacher in self.teachers.values():
            teacher._apply(fn)
        return super()._apply(fn, recurse)
