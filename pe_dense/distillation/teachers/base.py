"""What all teachers have in common: frozen, never trained, never saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn

from pe_dense.distillation.feature_cache import FeatureCache, digest
from pe_dense.utils.errors import InputError

DTYPES = ("float32", "bfloat16")


class Teacher(nn.Module, ABC):
    """A source of tokens for images.

    Args:
        dtype: 'float32' or 'bfloat16', what it computes in.
        cache: folder in which its tokens are kept, see :class:`~pe_dense.distillation.feature_cache.FeatureCache`;
        None to
            compute them each time.

    Raises:
        ValueError: for another dtype.
    """

    def __init__(self, dtype: str = "float32", cache: str | None = None):
        super().__init__()
        if dtype not in DTYPES:
            raise InputError(f"A teacher's dtype is {' or '.join(DTYPES)}, not {dtype!r}")
        self.dtype = getattr(torch, dtype)
        self.cache = FeatureCache(cache) if cache else None

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens of images, without gradients.

        Args:
            images: (B, 3, H, W), RGB between 0 and 1.
            grid: rows h and columns w of the tokens.

        Returns:
            (B, h w, C).

        Raises:
            ValueError: if the teacher can't give that grid.
        """
        with torch.inference_mode():
            if self.cache is None:
                tokens = self.tokens(images, grid)
            else:
                tokens = self.cache.get(images, f"{self.identity} {grid}", lambda some: self.tokens(some, grid))
        return tokens.clone()  # what is made in inference mode can't take part in a loss with gradients

    @abstractmethod
    def tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """As :meth:`forward`; called in inference mode."""

    @abstractmethod
    def settings(self) -> str:
        """All beside the weights on which the tokens depend, for the cache."""

    @cached_property
    def identity(self) -> str:
        """A hash of weights and settings."""
        state = self.state_dict()
        return digest([type(self).__qualname__, self.settings(), *(part for item in state.items() for part in item)])
