"""Base class of frozen teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn

from pe_dense.distillation.feature_cache import FeatureCache, digest
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
        """Implementation of :meth:`forward`, called in inference mode."""

    @abstractmethod
    def settings(self) -> str:
        """Return a string of all settings on which the tokens depend, apart from weights, for the cache key."""

    @cached_property
    def identity(self) -> str:
        """Hash of weights and settings."""
        state = self.state_dict()
        return digest([type(self).__qualname__, self.settings(), *(part for item in state.items() for part in item)])
