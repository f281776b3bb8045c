"""Smoothing over the grid of tokens."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

SIGMA = 1.0  # tokens


def low_pass(maps: Tensor) -> Tensor:
    """``0.5 x + 0.5 g(x)``, g a Gaussian of 3 x 3 tokens with sigma 1 (Perception Encoder, arXiv 2504.13181, B.3.2).

    At the border the outermost tokens are repeated. With that the smoothing keeps sums and is its own adjoint, which
    :mod:`pe_dense.visual.pca` relies on.

    Args:
        maps: (N, C, H, W), floating.

    Returns:
        (N, C, H, W).
    """
    side, centre = math.exp(-1 / (2 * SIGMA**2)), 1.0
    side, centre = side / (2 * side + centre), centre / (2 * side + centre)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    rows = side * (padded[..., :-2, :] + padded[..., 2:, :]) + centre * padded[..., 1:-1, :]
    return 0.5 * maps + 0.5 * (side * (rows[..., :-2] + rows[..., 2:]) + centre * rows[..., 1:-1])
