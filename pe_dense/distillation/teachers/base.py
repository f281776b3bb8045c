"""Base class of frozen teachers, and the teacher that is a frozen backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.build import build_pretrained
from pe_dense.distillation.feature_cache import FeatureCache, digest
from pe_dense.distillation.preprocessor import colors_of, resize
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

DTYPES = ("float32", "bfloat16")


class Teacher(nn.Module, ABC):
    """Base class of frozen teachers, which compute tokens of images and are neither trained nor saved.

    Args:
        dtype: data type of the computation, 'float32' or 'bfloat16'.
        cache: folder to cache tokens in, see :class:`~pe_dense.distillation.feature_cache.FeatureCache`; None for no
            cache.

    Raises:
        ValueError: for another dtype.
    """

    def __init__(self, dtype: str = "float32", cache: str | None = None):
        super().__init__()
        if dtype not in DTYPES:
            raise InputError(f"dtype of a teacher must be {' or '.join(DTYPES)}, got {dtype!r}")
        self.dtype = getattr(torch, dtype)
        self.cache = FeatureCache(cache) if cache else None

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute tokens of images, without gradients.

        Args:
            images: (B, 3, H, W), RGB in [0, 1].
            grid: rows h and columns w of tokens.

        Returns:
            (B, h w, C).

        Raises:
            ValueError: if the teacher does not support this grid.
        """
        with torch.inference_mode():
            if self.cache is None:
                tokens = self.tokens(images, grid)
            else:
                tokens = self.cache.get(images, f"{self.identity} {grid}", lambda some: self.tokens(some, grid))
        return tokens.clone()  # tensors created in inference mode cannot be used in a loss with gradients

    @abstractmethod
    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute tokens; called by :meth:`forward` in inference mode."""

    @abstractmethod
    def settings(self) -> str:
        """Return a string of all settings on which the tokens depend, apart from weights, for the cache key."""

    @cached_property
    def identity(self) -> str:
        """Hash of weights and settings."""
        state = self.state_dict()
        return digest([type(self).__qualname__, self.settings(), *(part for item in state.items() for part in item)])


@MODELS.register_module()
class TowerTeacher(Teacher):
    """Teacher that returns the patch tokens of one layer of a frozen backbone; later layers are removed.

    A class token is used in the backbone, but not returned.

    Args:
        tower: config of a :class:`~pe_dense.backbones.base.Backbone`, without ``init_cfg``.
        image_size: side of the input in pixels, a multiple of the patch size.
        layer: block number from 0; negative ones count from the end.
        checkpoint: path or ``hf://`` name of the weights; None for random weights.
        content: content of the checkpoint, if it was already read; tensors are not copied if dtype and shapes match.
        dtype: data type of weights and computation.
        cache: see :class:`Teacher`.

    Raises:
        ValueError: if the layer is out of range or the image size is not a multiple of the patch size.
        CheckpointError, FileNotFoundError: see :func:`~pe_dense.backbones.build.build_pretrained`.
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
            raise InputError(
                f"teacher layer {layer} is out of range for the {self.tower.num_layers} blocks of {self.tower.name}"
            )
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
        """Raise a ValueError if the token grid (rows, columns) of a student differs from that of the teacher."""
        if grid != self.grid:
            raise InputError(
                f"the teacher has {self.grid[0]} x {self.grid[1]} tokens at {self.image_size} px, the student has "
                f"{grid[0]} x {grid[1]}: choose image sizes with the same token grid"
            )

    def settings(self) -> str:
        """See :class:`Teacher`."""
        return f"{self._tower_config} {self.layer} {self.image_size} {self.dtype}"
