"""PCA of standardized features and k-means, in blocks."""

import numpy as np
import pytest
import torch

from pe_dense.evaluation import clustering
from pe_dense.evaluation.clustering import kmeans, reduce_features


def blobs(count=60, clusters=4):
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.randn(clusters, 3, generator=generator)
    return centers.repeat(count, 1) + 0.1 * torch.randn(count * clusters, 3, generator=generator)


@pytest.mark.parametrize("block", [7, 1000])
def test_reduction_is_the_pca_of_standardized_channels(block, monkeypatch):
    monkeypatch.setattr(clustering, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(40, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 5
    standard = ((points - points.mean(0)) / points.std(0, correction=0)).double().numpy()
    _, _, basis = np.linalg.svd(standard, full_matrices=False)
    found = reduce_features(points, 3).numpy()
    expected = standard @ basis[:3].T
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 1e-4
    assert reduce_features(points, 50).shape == (40, 6)


@pytest.mark.parametrize("block", [7, 1000])
def test_separate_groups_are_found(block, monkeypatch):
    monkeypatch.setattr(clustering, "_BLOCK", block)
    found = kmeans(blobs(), 4, seed=1).view(-1, 4)
    assert (found == found[0]).all() and len(set(found[0].tolist())) == 4


def test_seed_decides_and_samples_are_enough():
    points = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kmeans(points, 7, seed=3), kmeans(points, 7, seed=3))
    assert not torch.equal(kmeans(points, 7, seed=3), kmeans(points, 7, seed=4))
    found = kmeans(blobs(), 4, points_per_centroid=20).view(-1, 4)
    assert (found == found[0]).all()


def test_empty_clusters_move_and_restarts_help():
    """Eight starts in one group of many points and a far one: without moving, clusters would stay empty."""
    points = torch.cat([torch.zeros(50, 2), torch.tensor([[9.0, 9.0]])])
    assert len(kmeans(points, 3, restarts=1).unique()) == 2  # only two different points
    assert kmeans(points, 3, restarts=1)[-1] != kmeans(points, 3, restarts=1)[0]


def test_too_many_clusters():
    with pytest.raises(ValueError, match="4 clusters of 3 points"):
        kmeans(torch.rand(3, 2), 4)
