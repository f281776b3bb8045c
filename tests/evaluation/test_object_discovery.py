"""TokenCut and LOST on features of two groups of patches."""

import numpy as np
import pytest
import torch

from pe_dense.evaluation.object_discovery import discover, lost, tokencut


def scene(grid=(6, 8), rows=slice(1, 4), columns=slice(2, 5)):
    """An object of 3 x 3 patches whose features differ from those of the background."""
    inside = np.zeros(grid, bool)
    inside[rows, columns] = True
    noise = 0.1 * torch.randn(*grid, 4, generator=torch.Generator().manual_seed(0))
    thing, ground = torch.tensor([1.0, 0, 0, -0.5]), torch.tensor([-0.6, 1, 0, 0.5])
    features = torch.where(torch.from_numpy(inside)[..., None], thing, ground) + noise
    return features.flatten(0, 1), grid, inside


@pytest.mark.parametrize("method", ["tokencut", "lost"])
def test_object_is_found(method):
    features, grid, inside = scene()
    found = discover(features, grid, method)
    assert np.array_equal(found.mask, inside)
    assert found.box(10, (60, 80)).tolist() == [20, 10, 50, 40]


def test_box_is_cut_to_the_image():
    features, grid, _ = scene(rows=slice(4, 6), columns=slice(6, 8))
    assert tokencut(features, grid).box(10, (57, 73)).tolist() == [60, 40, 73, 57]


def test_only_the_component_of_the_seed_counts():
    features, grid, inside = scene()
    features = features.unflatten(0, grid).clone()
    features[5, 7] = features[1, 2]  # a second part of the foreground
    found = lost(features.flatten(0, 1), grid)
    assert found.foreground[5, 7] and found.mask.sum() in (1, 9) and not (found.mask & ~found.foreground).any()


def test_thresholds_change_the_cut():
    features, grid, inside = scene()
    assert np.array_equal(tokencut(features, grid, tau=0.2).mask, inside)
    assert not np.array_equal(tokencut(features, grid, tau=0.999).mask, inside)


def test_bad_arguments():
    with pytest.raises(ValueError, match="method 'dino' is not one of tokencut, lost"):
        discover(torch.rand(4, 2), (2, 2), "dino")
    with pytest.raises(ValueError, match="4 features are not a grid of 2 x 3 patches"):
        lost(torch.rand(4, 2), (2, 3))
