"""Smoothing over the grid of tokens."""

from __future__ import annotations

import torch
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
    tap = torch.exp(-(torch.arange(-1, 2, device=maps.device) ** 2) / (2 * SIGMA**2))
    gauss = torch.outer(tap, tap) / tap.sum() ** 2
    identity = torch.zeros_like(gauss)
    identity[1, 1] = 1.0
    kernel = (0.5 * identity + 0.5 * gauss).to(maps.dtype)
    single = maps.flatten(0, 1)[:, None]  # (N * C, 1, H, W)
    return F.conv2d(F.pad(single, (1, 1, 1, 1), mode="replicate"), kernel[None, None])[:, 0].view_as(maps)
