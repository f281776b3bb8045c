"""Map features to colors by principal component analysis (PCA)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pe_dense.utils.errors import InputError
from pe_dense.visualization.pca import Basis, fit_basis

# Ranges of lightness and chroma in which nearly all hues exist in sRGB. Outside of them colors are clipped, which
# shifts the hue.
LIGHTNESS = (35.0, 95.0)
CHROMA = (5.0, 55.0)
BACKGROUND = 255


def feature_rgb(
    features: Tensor, mask: Tensor | None = None, *, per_image: bool = False, basis: Basis | None = None
) -> np.ndarray:
    """Color features by PCA: three principal components as lightness, chroma and hue (arXiv 2504.13181, B.3.2).

    Similar regions of all images have similar colors. The result depends neither on the order of the images nor on a
    random seed.

    Args:
        features: (N, C, H, W), C at least 3.
        mask: (N, H, W) bool, the tokens to fit the components to and to color; the others become white.
        per_image: fit the principal components to each image separately, for more contrast. Colors are then not
            comparable between images.
        basis: components to use, for example for the frames of a video; ``fit_basis`` of the features by default.

    Returns:
        (N, H, W, 3) uint8, sRGB.

    Raises:
        ValueError: for other shapes, NaN or infinite values, or fewer than 4 selected tokens.
    """
    if per_image:
        if basis is not None:
            raise InputError("basis and per_image exclude each other: per_image fits a basis to each image")
        masks = [None] * len(features) if mask is None else mask[:, None]
        return np.concatenate([feature_rgb(x[None], m) for x, m in zip(features, masks, strict=True)])
    basis = fit_basis(features, mask) if basis is None else basis
    rgb = unit_to_rgb(basis.unit_scores(features))
    if mask is not None:
        rgb[~mask.cpu().numpy()] = BACKGROUND
    return rgb


def unit_to_rgb(unit: Tensor) -> np.ndarray:
    """Convert three scores in 0..1 to colors.

    Args:
        unit: (N, 3, H, W) for lightness, chroma and hue. The first two are clipped to 0..1; the hue is an angle, for
            which 0..1 is a full turn, and wraps around.

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
    """Convert CIE LCh (D65) to sRGB; out-of-gamut colors are clipped.

    Args:
        lch: (..., 3): lightness 0..100, chroma >= 0, hue in radians.

    Returns:
        (..., 3) uint8.
    """
    from skimage.color import lab2rgb, lch2lab

    return np.rint(lab2rgb(lch2lab(lch)) * 255).astype(np.uint8)


def _range(unit: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + unit.clamp(0.0, 1.0) * (high - low)
