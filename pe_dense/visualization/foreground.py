"""Which tokens belong to what a picture is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pe_dense.utils.errors import InputError
from pe_dense.utils.image import decode
from pe_dense.visualization.pca import fit_basis

_ASPECT_TOLERANCE = 0.05


def foreground_masks(features: Sequence[Tensor]) -> list[Tensor]:
    """Tell foreground from background by the first principal component of all images together.

    The component is cut where Otsu's method (1979) puts the threshold; foreground is the side that has the smaller
    share of the pictures' borders than of their inside.

    Args:
        features: maps (N, C, H, W), which may differ in N, H and W.

    Returns:
        a mask (N, H, W) bool for each.
    """
    from skimage.filters import threshold_otsu

    basis = fit_basis(features)
    scores = [basis.scores(x)[:, 0] for x in features]
    values = torch.cat([score.flatten() for score in scores]).cpu().numpy()
    threshold = float(threshold_otsu(values))
    masks = [score > threshold for score in scores]
    return masks if _share_of_border(masks) <= np.mean(values > threshold) else [~mask for mask in masks]


def _share_of_border(masks: Sequence[Tensor]) -> float:
    """How much of the outermost tokens is in the masks."""
    borders = [mask[:, border_mask(*mask.shape[1:]).to(mask.device)].flatten() for mask in masks]
    return float(torch.cat(borders).float().mean())


def border_mask(height: int, width: int) -> Tensor:
    """The outermost tokens of a grid (H, W), bool."""
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[1:-1, 1:-1] = False
    return outside


def read_mask(path: str | Path, photo_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Read a mask: what to look at is white, or any number but 0 in files of class or object numbers.

    Args:
        path: an image file, as large as its photo or smaller or larger in proportion.
        photo_size: (width, height) of its photo.
        grid: rows and columns of tokens.

    Returns:
        (1, H, W) bool, true for tokens of which at least half is in the mask.

    Raises:
        FileNotFoundError, ValueError: if it can't be read, has other proportions than the photo, or covers no token.
    """
    image = decode(path)
    if image.mode in ("LA", "RGBA"):  # a cut-out: what is transparent is outside
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    stretch = image.width / image.height / (photo_size[0] / photo_size[1])
    if abs(stretch - 1) > _ASPECT_TOLERANCE:
        raise InputError(
            f"mask {path} is {image.width} x {image.height} px and its photo {photo_size[0]} x {photo_size[1]}: "
            "a mask may have another size, but not other proportions"
        )
    colorful = image.mode not in ("1", "L", "P", "I", "I;16", "F")
    values = np.asarray(image.convert("L") if colorful else image)
    # Gray masks are white where they are set; files of class or object numbers have small ones, or a palette.
    inside = values > (127 if image.mode != "P" and values.max() == 255 else 0)
    covered = Image.fromarray(inside.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    mask = torch.from_numpy(np.array(covered) >= 0.5)[None]
    if not mask.any():
        raise InputError(f"mask {path} covers no token of the {grid[0]} x {grid[1]}: it is empty, or too small a spot")
    return mask
