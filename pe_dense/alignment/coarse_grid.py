"""Bilinear resampling that asks only for the pixels it reads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CoarseAxis:
    """One axis of a map of logits and of a coarser grid on it.

    The map comes of two transposed convolutions with stride 2, so pixel i is a child of pixel i // 2 of the map before.

    Args:
        weights: (G, F), bilinear weights (``align_corners=False``, no antialiasing) of the F pixels that are read.
        fine: (F,), their indices, rising.
        middle: (M,), the indices of their parents, rising.
    """

    weights: Tensor
    fine: Tensor
    middle: Tensor

    @classmethod
    def of(cls, size: int, cells: int, device: torch.device) -> CoarseAxis:
        """From ``size`` pixels to ``cells``."""
        # Resampling is linear: what it does to the unit vectors is its matrix.
        matrix = F.interpolate(torch.eye(size)[None], size=cells, mode="linear", align_corners=False)[0].T
        fine = matrix.any(dim=0).nonzero()[:, 0]
        return cls(*(t.to(device) for t in (matrix[:, fine], fine, torch.unique(fine // 2))))


def transposed_conv_at(
    x: Tensor, conv: nn.ConvTranspose2d, parents: tuple[Tensor, Tensor], parities: tuple[Tensor, Tensor]
) -> Tensor:
    """Some output pixels of a transposed convolution with kernel 2 and stride 2.

    Args:
        x: (P, H, W, C), the input, or those rows and columns of it that are needed.
        conv: with C input channels.
        parents: of R rows and K columns of the output, their input's places in x.
        parities: whether they are the first (0) or second (1) child of it.

    Returns:
        (P, R, K, C').
    """
    out = x.new_empty(len(x), *map(len, parents), conv.out_channels)
    for child in product((0, 1), repeat=2):
        rows, columns = ((parity == side).nonzero()[:, 0] for parity, side in zip(parities, child, strict=True))
        if len(rows) and len(columns):
            source = x[:, parents[0][rows, None], parents[1][columns]]
            out[:, rows[:, None], columns] = (source @ conv.weight[:, :, child[0], child[1]]).to(out.dtype)
    return out.add_(conv.bias)
