"""Unsupervised discovery of one object per image from the similarity of patches: TokenCut and LOST.

Sources: TokenCut (arXiv 2202.11539) and LOST (arXiv 2109.14279). In shapes h and w are the sides of the grid of
patches, P = h * w, C the number of feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from pe_dense.utils.errors import InputError

_TIE = 1e-9
METHODS = ("tokencut", "lost")


@dataclass(frozen=True)
class Discovery:
    """Result of one image.

    Attributes:
        mask: (h, w) bool, the patches of the object: the connected component of the seed.
        seed: index of the patch that the object was grown from.
        scores: (h, w) float64, the eigenvector of TokenCut (larger is more likely foreground) or minus the degree of a
            patch in LOST.
        foreground: (h, w) bool, all patches on the object's side, from which the component was taken.
    """

    mask: np.ndarray
    seed: int
    scores: np.ndarray
    foreground: np.ndarray

    def box(self, patch_size: int, image_size: tuple[int, int]) -> np.ndarray:
        """Return the box (x0, y0, x1, y1) in pixels, float64, cut to the image.

        Args:
            patch_size: side of a patch in pixels.
            image_size: (height, width).
        """
        rows, columns = np.nonzero(self.mask)
        low = np.array([columns.min(), rows.min()]) * patch_size
        high = np.array([columns.max() + 1, rows.max() + 1]) * patch_size
        return np.concatenate([low, np.minimum(high, image_size[::-1])]).astype(np.float64)


def tokencut(features: Tensor, grid: tuple[int, int], *, tau: float = 0.2, eps: float = 1e-5) -> Discovery:
    """Find the object by a normalized cut of the graph of patches.

    Patches are connected with weight 1 if the cosine of their features is above ``tau``, else ``eps``. The second
    smallest generalized eigenvector of the graph's Laplacian is split at its mean. The object is on the side of the
    largest absolute value.

    Args:
        features: (P, C).
        grid: (h, w).
        tau: threshold; the published one is 0.2 for keys of DINO.
        eps: weight of patches that are not similar.
    """
    _check_grid(features, grid)
    unit = F.normalize(features.float(), dim=1)
    weights = torch.where(unit @ unit.T > tau, 1.0, eps).double()
    root = weights.sum(1).rsqrt()
    # The generalized problem (D - A) v = lambda D v has the eigenvectors of D^-1/2 A D^-1/2, scaled by D^-1/2.
    _, vectors = torch.linalg.eigh(root[:, None] * weights * root)
    vector = (root * vectors[:, -2]).cpu().numpy()
    size = np.abs(vector)
    # Patches with the same neighbors have the same value but for rounding; the first one is the seed.
    seed = int((size >= (1 - _TIE) * size.max()).argmax())
    foreground = vector > vector.mean()
    if not foreground[seed]:
        vector, foreground = -vector, ~foreground
    foreground = foreground.reshape(grid)
    return Discovery(_component(foreground, seed), seed, vector.reshape(grid), foreground)


def lost(features: Tensor, grid: tuple[int, int], *, num_patches: int = 100) -> Discovery:
    """Find the object by growing it from the patch with the fewest positively correlated patches.

    Args:
        features: (P, C), without normalization.
        grid: (h, w).
        num_patches: number of patches of lowest degree among which similar seeds are searched.
    """
    _check_grid(features, grid)
    affinity = features.float() @ features.float().T
    similar = affinity > 0
    degree = similar.sum(1) - similar.diagonal().long()
    order = degree.sort(stable=True).indices
    seed = int(order[0])
    seeds = order[:num_patches]
    seeds = seeds[affinity[seed, seeds] > 0]
    foreground = (affinity[seeds].sum(0) > 0).cpu().numpy().reshape(grid)
    # A seed that is negatively correlated with all seeds would have no component.
    foreground.reshape(-1)[seed] = True
    scores = -degree.double().cpu().numpy().reshape(grid)
    return Discovery(_component(foreground, seed), seed, scores, foreground)


def discover(features: Tensor, grid: tuple[int, int], method: str, **settings) -> Discovery:
    """Run a method by name: 'tokencut' or 'lost'; settings are those of its function.

    Raises:
        ValueError: for another name.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS)}")
    return (tokencut if method == "tokencut" else lost)(features, grid, **settings)


def _component(mask: np.ndarray, seed: int) -> np.ndarray:
    """Return the 4-connected component (h, w) of a mask that contains the seed."""
    labels, _ = ndimage.label(mask)
    return labels == labels.reshape(-1)[seed]


def _check_grid(features: Tensor, grid: tuple[int, int]) -> None:
    if len(features) != grid[0] * grid[1]:
        raise InputError(f"{len(features)} features are not a grid of {grid[0]} x {grid[1]} patches")
