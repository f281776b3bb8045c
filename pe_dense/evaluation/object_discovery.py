"""Unsupervised discovery of one object per image from the similarity of patches: TokenCut and LOST.

Sources: TokenCut (arXiv 2202.11539) and LOST (arXiv 2109.14279). In shapes h and w are the sides of the grid of
patches, P = h * w, C the number of feature channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from scipy.linalg import eigh
from torch import Tensor

from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import object_boxes
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.evaluation.scores import corloc
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image
from pe_dense.visualization.features import to_input

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
    vector = root.cpu().numpy() * _second_largest_eigenvector(root[:, None] * weights * root)
    size = np.abs(vector)
    # Patches with the same neighbors have the same value but for rounding; the first one is the seed.
    seed = int((size >= (1 - _TIE) * size.max()).argmax())
    foreground = vector > vector.mean()
    if not foreground[seed]:
        vector, foreground = -vector, ~foreground
    foreground = foreground.reshape(grid)
    return Discovery(_component(foreground, seed), seed, vector.reshape(grid), foreground)


def _second_largest_eigenvector(matrix: Tensor) -> np.ndarray:
    """Compute one eigenvector (P,) of a symmetric matrix (P, P), on its device."""
    if matrix.device.type == "cpu":  # where only this vector is computed
        place = len(matrix) - 2
        return eigh(matrix.numpy(), subset_by_index=[place, place], check_finite=False)[1][:, 0]
    return torch.linalg.eigh(matrix)[1][:, -2].cpu().numpy()


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


TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def _load_padded(item: tuple[Path, np.ndarray], grid: int | None, patch: int, mean: tuple, std: tuple):
    """Read an image at its own size, or resized to a square of ``grid`` patches, padded to whole patches."""
    path, boxes = item
    image = read_image(path, ignore_orientation=True)
    if grid is not None:
        scale = grid * patch / np.array(image.size)
        image, boxes = image.resize((grid * patch,) * 2, Image.Resampling.BILINEAR), boxes * np.tile(scale, 2)
    pixels = to_input(image, mean, std)[0]
    bottom, right = (-length % patch for length in pixels.shape[1:])
    padded = torch.nn.functional.pad(pixels, (0, right, 0, bottom))
    return padded, (boxes, tuple(pixels.shape[1:]), np.asarray(image))


def evaluate_discovery(
    run: TaskRun,
    data: str,
    *,
    method: str,
    grid: int | None = None,
    taus: Sequence[float] = TAUS,
    generator: dict | None = None,
) -> list[dict]:
    """Evaluate object discovery by CorLoc.

    Args:
        run: backbone and layers.
        data: see :func:`~pe_dense.evaluation.data.object_boxes`.
        method: 'tokencut' or 'lost'.
        grid: resize images to squares of this many patches; None for their own size.
        taus: thresholds of TokenCut; the best one of each layer is reported with its value, since cosines of different
            backbones differ in range (as in DINOv3's evaluation).
        generator: of generated data.

    Returns:
        rows with ``CorLoc`` in percent, and ``tau``.
    """
    items = object_boxes(data, run.root, generator)
    patch = run.tower.patch_size
    load = partial(_load_padded, grid=grid, patch=patch, mean=run.tower.mean, std=run.tower.std)
    settings = [dict(tau=tau) for tau in taus] if method == "tokencut" else [{}]
    found: dict[int, list[list]] = {layer: [[] for _ in settings] for layer in run.layers}
    truth, shown = [], []
    extractor = run.extractor(norm=True)
    extractor.announce_cache(len(items), grid**2 if grid else (500 // patch) ** 2)
    for index, (boxes, size, pixels), maps in extractor.iter(items, load):
        truth.append(boxes)
        scores = []
        for layer, features in maps.items():
            for place, setting in enumerate(settings):
                result = discover(features.flatten(1).T, tuple(features.shape[1:]), method, **setting)
                found[layer][place].append(result.box(patch, size))
                if layer == run.layers[-1]:
                    scores.append(result.scores)
        if index < SHOWN_IMAGES:
            shown.append((pixels, boxes, found[run.layers[-1]], scores, index))
    rows = []
    for layer, by_setting in found.items():
        values = [100 * corloc(boxes, truth) for boxes in by_setting]
        best = int(np.argmax(values))
        rows.append(dict(layer=layer, CorLoc=values[best], **settings[best]))
    run.save(pictures.box_figure(shown, best))
    return rows
