"""Over-clustering of patch features: k-means on standardized, PCA-reduced features of a whole data set.

Source: Leopart (arXiv 2204.13101) and NeCo (arXiv 2408.11054): standardize each channel, reduce to 50 principal
components without whitening, k-means with 5 restarts, and assign each cluster to a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pe_dense.evaluation import pictures
from pe_dense.evaluation.data import load_labeled, segmentation_data
from pe_dense.evaluation.run import SHOWN_IMAGES, TaskRun
from pe_dense.evaluation.scores import count_pairs, many_to_one_miou
from pe_dense.utils.errors import InputError

_BLOCK = 16_384  # points whose distances are computed at a time
_BLOCK_CPU = 2048  # so that the distances to 100 centroids stay in the cache of a core
POINTS_PER_CENTROID = 256  # points used to fit k-means, as in faiss


def reduce_features(points: Tensor, dims: int = 50) -> Tensor:
    """Standardize each channel and project onto the first principal components.

    Args:
        points: (P, C), replaced block by block in place of copies: pass a copy if it is still needed.
        dims: number of components; all if there are fewer channels.

    Returns:
        (P, min(dims, C)) float32.
    """
    blocks = range(0, len(points), _BLOCK)
    total = sum(points[i : i + _BLOCK].double().sum(0) for i in blocks)
    mean = total / len(points)
    variance = sum(((points[i : i + _BLOCK].double() - mean) ** 2).sum(0) for i in blocks) / len(points)
    scale = variance.sqrt().clamp(min=1e-12)

    def standardized(start: int) -> Tensor:
        return ((points[start : start + _BLOCK].double() - mean) / scale).float()

    covariance = sum(block.T.double() @ block.double() for block in map(standardized, blocks)) / len(points)
    _, vectors = torch.linalg.eigh(covariance)
    basis = vectors.flip(1)[:, :dims].float()
    # The sign of a component is arbitrary; fixed here so that results do not depend on the linear algebra library.
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return torch.cat([standardized(start) @ basis for start in blocks])


def kmeans(
    points: Tensor,
    clusters: int,
    *,
    iterations: int = 100,
    restarts: int = 5,
    seed: int = 0,
    points_per_centroid: int = POINTS_PER_CENTROID,
) -> Tensor:
    """Cluster points by k-means (Lloyd's algorithm); the restart with the smallest error is kept.

    Centroids start at random points. An empty cluster moves to the point that is farthest from its centroid.

    Args:
        points: (P, D).
        clusters: number of clusters, at most P.
        iterations: maximum number of iterations; fewer if the assignment no longer changes.
        restarts: number of runs with other starts.
        seed: of the starts and of the sample.
        points_per_centroid: k-means is fitted to a sample of at most this many points per cluster.

    Returns:
        cluster of each point, (P,) int64.

    Raises:
        ValueError: if there are more clusters than points.
    """
    if not 1 <= clusters <= len(points):
        raise InputError(f"{clusters} clusters of {len(points)} points: choose between 1 and the number of points")
    generator = torch.Generator().manual_seed(seed)
    sample = points
    if len(points) > clusters * points_per_centroid:
        chosen = torch.randperm(len(points), generator=generator)[: clusters * points_per_centroid]
        sample = points[chosen.to(points.device)]
    best, least = None, float("inf")
    for _ in range(restarts):
        start = torch.randperm(len(sample), generator=generator)[:clusters]
        centroids, assigned, error = _fit(sample, sample[start.to(sample.device)], iterations)
        if error < least:
            best, least = (centroids, assigned), error
    centroids, assigned = best
    return assigned if sample is points else _assign(points, centroids)[0]


def _fit(points: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor, float]:
    """Return the centroids (K, D) of one run, the nearest one (P,) of each point, and the error up to a constant."""
    assigned = None
    for _ in range(iterations):
        previous = assigned
        assigned, distances = _assign(points, centroids)
        if previous is not None and torch.equal(previous, assigned):
            break
        sums = torch.zeros_like(centroids).index_add_(0, assigned, points)
        sizes = torch.bincount(assigned, minlength=len(centroids))
        centroids = sums / sizes.clamp(min=1)[:, None]
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            distances += (points**2).sum(1)
            centroids[empty] = points[distances.topk(len(empty)).indices]
    assigned, distances = _assign(points, centroids)
    return centroids, assigned, float(distances.double().sum())


def _assign(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid (P,) of each point, and the squared distance to it minus the point's square (P,)."""
    norms, size = (centroids**2).sum(1), _BLOCK_CPU if points.device.type == "cpu" else _BLOCK
    found = [torch.addmm(norms, block, centroids.T, alpha=-2).min(dim=1) for block in points.split(size)]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])


_CLUSTER_MAP = 100  # px, side of the label maps on which clusters are compared with classes


def evaluate_clusters(
    run: TaskRun,
    data: str,
    *,
    grid: int,
    clusters: int,
    seeds: Sequence[int] = range(5),
    generator: dict | None = None,
    **settings,
) -> list[dict]:
    """Evaluate over-clustering of the validation images.

    Args:
        run, data, grid, generator: see :func:`evaluate_knn`.
        clusters: K of k-means.
        seeds: of k-means; the mean is reported.
        settings: arguments of :func:`~pe_dense.evaluation.clustering.kmeans`.

    Returns:
        rows with ``mIoU``: each cluster has the class of highest precision, in percent.
    """
    files = segmentation_data(data, run.root, generator)
    side, classes = grid * run.tower.patch_size, len(files.classes)
    load = partial(load_labeled, data=files, side=side, mean=run.tower.mean, std=run.tower.std, augment=False)
    extractor = run.extractor(norm=True)
    extractor.announce_cache(len(files.val), grid**2)
    rows, shown = [], []
    for layers in run.groups(8.0 * len(files.val) * grid**2 * run.tower.embed_dim):
        points: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        truth = []
        for _, labels, maps in extractor.with_layers(layers).iter(list(enumerate(files.val)), load):
            truth.append(_nearest(labels[None], _CLUSTER_MAP)[0])
            for layer, features in maps.items():
                points[layer].append(features.flatten(1).T)
        for layer in layers:
            reduced = reduce_features(torch.cat(points.pop(layer)))
            scores = []
            for seed in seeds:
                found = kmeans(reduced, min(clusters, len(reduced)), seed=seed, **settings)
                found = _nearest(found.view(-1, grid, grid), _CLUSTER_MAP)
                table = count_pairs(found.cpu(), torch.stack(truth), clusters, classes)
                scores.append(100 * many_to_one_miou(table))
            rows.append(dict(layer=layer, mIoU=float(np.mean(scores)), deviation=float(np.std(scores))))
            if layer == run.layers[-1]:
                pairs = zip(files.val[:SHOWN_IMAGES], truth, found.cpu(), strict=False)
                shown = [(path, labels.numpy(), clusters.numpy()) for (path, _), labels, clusters in pairs]
    run.save(pictures.label_figure(shown, files.palette, "clusters", cluster_colors=True))
    return rows


def _nearest(maps: Tensor, side: int) -> Tensor:
    """Resize label maps (N, h, w) to (N, side, side) by nearest neighbor."""
    rows, columns = (torch.arange(side, device=maps.device) * length // side for length in maps.shape[1:])
    return maps[:, rows[:, None], columns]
