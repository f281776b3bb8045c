"""Pictures of unsupervised methods: k-means clusters of patches, and the object that TokenCut or LOST finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from pe_dense.evaluation.clustering import kmeans, reduce_features
from pe_dense.evaluation.object_discovery import METHODS, Discovery, discover
from pe_dense.utils.errors import InputError
from pe_dense.visualization.drawing import fit_image, overlay_heatmap
from pe_dense.visualization.features import FigureInputs
from pe_dense.visualization.figures import FEW, LARGE, SMALL, blend_labels, save_sheet, tile_sheet, word_colors

MIN_CLUSTERS, MAX_CLUSTERS = 2, 18  # as many as there are distinct colors
DEFAULT_CLUSTERS, DEFAULT_TAU = 6, 0.2
# Tokens of an image in which an object is searched: the time of TokenCut grows with their third power.
MAX_TOKENS = 2500
_ORANGE = (230, 159, 0)


def cluster_maps(maps: Sequence[Tensor], count: int) -> list[np.ndarray]:
    """Cluster the tokens of all images together by k-means, after the standardization and PCA of the benchmark.

    Args:
        maps: a map (1, C, h, w) of each image.
        count: number of clusters.

    Returns:
        the cluster of each token of each image, (h, w) int64; cluster 0 is the largest.

    Raises:
        InputError: if the number is out of range, or there are fewer tokens.
    """
    if not MIN_CLUSTERS <= count <= MAX_CLUSTERS:
        raise InputError(f"{count} clusters are out of range: it must be {MIN_CLUSTERS} to {MAX_CLUSTERS}")
    points = torch.cat([features[0].flatten(1).T for features in maps]).float().cpu()
    found = kmeans(reduce_features(points), count, restarts=2)
    order = torch.bincount(found, minlength=count).argsort(descending=True, stable=True).argsort()
    parts = order[found].split([features.shape[2] * features.shape[3] for features in maps])
    return [part.view(features.shape[2:]).numpy() for part, features in zip(parts, maps, strict=True)]


def cluster_picture(image: Image.Image, labels: np.ndarray, count: int) -> Image.Image:
    """Blend a gray image with the colors of the clusters (h, w) of its tokens."""
    large = np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST))
    return blend_labels(image, large, word_colors(count))


def find_object(features: Tensor, method: str, tau: float = DEFAULT_TAU) -> Discovery:
    """Find the object of an image.

    Args:
        features: (1, C, h, w); a map of more than 2,500 tokens is averaged to fewer.
        method: 'tokencut' or 'lost'.
        tau: threshold of TokenCut.
    """
    height, width = features.shape[2:]
    if height * width > MAX_TOKENS:
        scale = (MAX_TOKENS / (height * width)) ** 0.5
        features = F.adaptive_avg_pool2d(features, tuple(max(int(scale * side), 1) for side in (height, width)))
    settings = dict(tau=tau) if method == "tokencut" else {}
    return discover(features[0].flatten(1).T, tuple(features.shape[2:]), method, **settings)


def object_picture(image: Image.Image, found: Discovery) -> Image.Image:
    """Draw the scores of the tokens as a heat map, and the box of the object."""
    low, high = found.scores.min(), found.scores.max()
    picture = overlay_heatmap(image, (found.scores - low) / max(high - low, 1e-12))
    rows, columns = np.nonzero(found.mask)
    (height, width), (wide, tall) = found.mask.shape, image.size
    corners = (columns.min() * wide / width, rows.min() * tall / height)
    corners += ((columns.max() + 1) * wide / width - 1, (rows.max() + 1) * tall / height - 1)
    ImageDraw.Draw(picture).rectangle(corners, outline=_ORANGE, width=max(2, wide // 100))
    return picture


def draw_clusters(
    inputs: FigureInputs, blocks: Sequence[int], out: Path, *, count: int = DEFAULT_CLUSTERS
) -> Iterator[Path]:
    """Draw k-means clusters of the tokens of all images together, one sheet per image.

    Args:
        inputs, blocks, out: see :func:`~pe_dense.visualization.figures.draw_pca`.
        count: number of clusters.

    Yields:
        the path of each file after it is written.
    """
    found = [(block, cluster_maps(maps, count)) for block, maps in inputs.iter_intermediates(blocks)]

    def pictures(number: int, image: Image.Image) -> list[tuple[str, Image.Image]]:
        return [(f"layer {block}", cluster_picture(image, labels[number], count)) for block, labels in found]

    yield from _sheets(inputs, len(found), pictures, out, "clusters")


def draw_discovery(
    inputs: FigureInputs, blocks: Sequence[int], out: Path, *, method: str = METHODS[0], tau: float = DEFAULT_TAU
) -> Iterator[Path]:
    """Draw the object that is found in each image, one sheet per image.

    Args:
        inputs, blocks, out: see :func:`~pe_dense.visualization.figures.draw_pca`.
        method, tau: see :func:`find_object`.

    Yields:
        the path of each file after it is written.
    """
    found = [
        (block, [find_object(features, method, tau) for features in maps])
        for block, maps in inputs.iter_intermediates(blocks)
    ]

    def pictures(number: int, image: Image.Image) -> list[tuple[str, Image.Image]]:
        return [(f"layer {block}, {method}", object_picture(image, objects[number])) for block, objects in found]

    yield from _sheets(inputs, len(found), pictures, out, method)


def _sheets(inputs: FigureInputs, count: int, pictures, out: Path, kind: str) -> Iterator[Path]:
    for number, name in enumerate(inputs.names):
        image = fit_image(inputs.images[number], LARGE if count <= FEW else SMALL)
        yield save_sheet(tile_sheet(inputs, [(name, image), *pictures(number, image)]), out / f"{name}_{kind}.png")
