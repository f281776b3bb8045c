"""A frozen tower as teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.build import build_pretrained
from pe_dense.distillation.preprocessor import colors_of, resize
from pe_dense.distillation.teachers.base import Teacher
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class TowerTeacher(Teacher):
    """Tokens of one layer of a tower; later layers are neither kept nor run.

    A class token takes part, but is not among the tokens.

    Args:
        tower: config of a :class:`~pe_dense.backbones.base.Backbone`, without ``init_cfg``.
        image_size: side in pixels of the images that it sees, a multiple of its patch size.
        layer: block number from 0; negatives count from the end.
        checkpoint: path or ``hf://`` name of its weights; None for random ones.
        content: what was already read from there; tensors are not copied where dtype and shapes fit.
        dtype: of its weights and of the computation.
        cache: as of :class:`Teacher`.

    Raises:
        ValueError: for a layer out of range, or an image size that does not fit.
        CheckpointError, FileNotFoundError: as :func:`~pe_dense.backbones.build.build_pretrained`.
    """

    def __init__(
        self,
        tower: dict,
        image_size: int,
        checkpoint: str | None,
        layer: int = -1,
        content: Mapping | None = None,
        dtype: str = "float32",
        cache: str | None = None,
    ):
        super().__init__(dtype, cache)
        self.tower: Backbone = build_pretrained(tower, checkpoint, content)
        if not -self.tower.num_layers <= layer < self.tower.num_layers:
            raise InputError(f"Teacher's layer {layer} is not among the {self.tower.num_layers} of {self.tower.name}")
        self.layer = layer % self.tower.num_layers
        self._tower_config = dict(tower)
        self.image_size = image_size
        self.grid = self.tower.grid_of(torch.empty(0, 3, image_size, image_size))
        self.tower.prune_intermediate_layers(self.layer)
        self.to(self.dtype).requires_grad_(False).eval()

    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :meth:`Teacher.forward`."""
        self.require_grid(grid)
        images = resize(images, self.image_size, colors_of(self.tower))
        with torch.autocast(images.device.type, enabled=False):
            return self.tower.forward_intermediates(images, [self.layer], output_fmt="NLC")[0]

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Raise a ValueError if tokens (rows, columns) of a student are not on the teacher's grid."""
        if grid != self.grid:
            raise InputError(
                f"The teacher gives {self.grid[0]} x {self.grid[1]} tokens of {self.image_size} px, the student has "
                f"{grid[0]} x {grid[1]}: choose image sizes that give both the same grid"
            )

    def settings(self) -> str:
        """See :class:`Teacher`."""
        return f"{self._tower_config} {self.layer} {self.image_size} {self.dtype}"
