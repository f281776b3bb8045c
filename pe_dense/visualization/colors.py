"""From feature maps to colors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pe_dense.utils.errors import InputError
from pe_dense.visualization.pca import Basis, fit_basis

# Ranges of lightness and chroma that nearly all hues have in sRGB; beyond, colors would be clipped and hues bent.
LIGHTNESS = (35.0, 95.0)
CHROMA = (5.0, 55.0)
BACKGROUND = 255


def feature_rgb(
    features: Tensor, mask: Tensor | None = None, *, per_image: bool = False, basis: Basis | None = None
) -> np.ndarray:
    """Colors of features: three principal components as lightness, chroma and hue (arXiv 2504.13181, B.3.2).

    Like parts of all images get like colors; they depend neither on the images' order nor on chance.

    Args:
        features: (N, C, H, W), C at least 3.
        mask: (N, H, W) bool, the tokens to look at and to color; the others become white.
        per_image: principal components of each image by itself, for more contrast; colors then can't be compared.
        basis: use these components, as for the frames of a video; ``fit_basis`` of the features by default.

    Returns:
        (N, H, W, 3) uint8, sRGB.

    Raises:
        ValueError: for other shapes, values that are not finite, or fewer than 4 tokens to look at.
    """
    if per_image:
        if basis is not None:
            raise InputError("per_image finds components of its own: basis and per_image exclude each other")
        masks = [None] * len(features) if mask is None else mask[:, None]
        return np.concatenate([feature_rgb(x[None], m) for x, m in zip(features, masks, strict=True)])
    basis = fit_basis(features, mask) if basis is None else basis
    rgb = unit_to_rgb(basis.unit_scores(features))
    if mask is not None:
        rgb[~mask.cpu().numpy()] = BACKGROUND
    return rgb


def unit_to_rgb(unit: Tensor) -> np.ndarray:
    """Colors of three scores in 0..1.

    Args:
        unit: (N, 3, H, W) for lightness, chroma and hue. The first two are clipped to 0..1; the hue is an angle, for
            which 0..1 is a full turn, and goes on turning beyond.

    Returns:
        (N, H, W, 3) uint8, sRGB.
    """
    return lch_to_rgb(
        torch.stack(
            [
                _range(unit[:, 0], LIGHTNESS),
                _range(unit[:, 1], CHROMA),
                unit[:, 2].remainder(1.0) * 2 * torch.pi,
            ],
            dim=-1,
        )
        .cpu()
        .numpy()
    )


def lch_to_rgb(lch: np.ndarray) -> np.ndarray:
    """CIE LCh (D65) to sRGB; colors that sRGB lacks are clipped.

    Args:
        lch: (..., 3): lightness 0..100, chroma from 0, hue in radians.

    Returns:
        (..., 3) uint8.
    """
    from skimage.color import lab2rgb, lch2lab

    return np.rint(lab2rgb(lch2lab(lch)) * 255).astype(np.uint8)


def _range(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + unit.clamp(0.0, 1.0) * (high - low)
