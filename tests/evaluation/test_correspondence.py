"""Keypoints in the model input, matches and PCK of each variant."""

import pytest
import torch

from pe_dense.evaluation.correspondence import (
    VARIANTS,
    match_keypoints,
    padded_frame,
    pck,
    place_keypoints,
    threshold_scale,
)

POINTS = torch.tensor([[40.0, 10, 1], [7, 7, 0], [100, 50, 1]])
SIZE, BOX = (200, 100), (20, 0, 120, 60)


@pytest.mark.parametrize(
    ("variant", "expected", "unit"),
    [
        ("padded", [[20, 30], [0, 0], [50, 50]], (50, 50)),  # 25 px above the image
        ("whole", [[20, 5], [0, 0], [50, 25]], (50, 50)),
        ("boxed", [[20, 10], [0, 0], [80, 50]], (100, 100)),
        ("upsampled", [[20, 10], [0, 0], [50, 50]], (50, 100)),
    ],
)
def test_frames(variant, expected, unit):
    found = place_keypoints(POINTS, SIZE, 100, variant, BOX)
    assert found[:, :2].tolist() == expected and found[:, 2].tolist() == [1, 0, 1]
    assert threshold_scale(BOX, SIZE, 100, variant) == unit


def test_padded_frame_of_tall_images():
    assert padded_frame((50, 100), 80) == (20, 0, (40, 80))
    assert padded_frame((100, 1), 80) == (0, 39, (80, 1))


def grid_features(n=8, seed=0):
    return torch.randn(16, n, n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_image_matches_itself(variant):
    features, side = grid_features(), 64
    centers = torch.tensor([[12.0, 20, 1], [36, 44, 1], [60, 4, 1], [1, 1, 0]])
    if variant in ("whole", "boxed"):  # samples where `align_corners=True` has the patches
        centers = torch.tensor([[1 * 64 / 7, 2 * 64 / 7, 1], [5 * 64 / 7, 3 * 64 / 7, 1], [0, 0, 1], [1, 1, 0]])
    found = match_keypoints(features, features, centers, centers, side=side, variant=variant, unit=(float(side),) * 2)
    assert found.index.tolist() == [0, 1, 2] and found.error.max() < 0.11
    if variant == "padded":
        assert found.predicted.tolist() == [[11.5, 19.5], [35.5, 43.5], [59.5, 3.5]]
    if variant == "whole":
        assert found.predicted.tolist() == [[8, 16], [40, 24], [0, 0]]


def test_nearest_keypoint_of_the_prediction():
    features = grid_features()
    source = torch.tensor([[12.0, 20, 1], [36, 44, 1]])
    target = source[[1, 0]]  # the keypoints have changed places
    found = match_keypoints(features, features, source, target, side=64, variant="padded", unit=(64.0, 64.0))
    assert found.nearest.tolist() == [1, 0] and (found.error > 0.5).all() and (found.error_nearest < 0.1).all()


def test_no_common_keypoint():
    features, points = grid_features(), torch.tensor([[12.0, 20, 1], [36, 44, 0]])
    found = match_keypoints(features, features, points, points.flip(0), side=64, variant="padded", unit=(64.0, 64.0))
    assert len(found.error) == 0 and pck(found.error) == 0.0


def test_pck_is_strict():
    assert pck(torch.tensor([0.05, 0.1, 0.2, 0.0999], dtype=torch.float64)) == 0.5


def test_unknown_variant():
    with pytest.raises(ValueError, match="variant 'square' is not one of padded, whole, boxed, upsampled"):
        place_keypoints(POINTS, SIZE, 100, "square")
