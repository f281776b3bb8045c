"""PCA colors of features."""

import numpy as np
import pytest
import torch
from skimage.color import lab2lch, rgb2lab

from pe_dense.visualization import feature_rgb, fit_basis, lch_to_rgb
from pe_dense.visualization.colors import unit_to_rgb


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 32, 8, 12, generator=generator) * torch.arange(1, 33)[:, None, None] ** -0.5


def test_lch_round_trip():
    rgb = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).astype(np.uint8)
    assert np.array_equal(lch_to_rgb(lab2lch(rgb2lab(rgb))), rgb)


def test_known_colors():
    """Gray has no chroma; sRGB red is L 53.24, C 104.55, h 40.0 degrees (D65)."""
    lch = np.array([[0.0, 0.0, 1.0], [100.0, 0.0, 2.0], [53.24, 104.55, np.radians(40.0)]])
    assert np.abs(lch_to_rgb(lch).astype(int) - [[0, 0, 0], [255, 255, 255], [255, 0, 0]]).max() <= 1


def test_form(features):
    rgb = feature_rgb(features)
    assert isinstance(rgb, np.ndarray)
    assert rgb.dtype == np.uint8
    assert rgb.shape == (3, 8, 12, 3)
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) > 200


def test_neither_order_nor_repetition_changes_colors(features):
    rgb, order = feature_rgb(features), [2, 0, 1]
    assert np.array_equal(feature_rgb(features), rgb)
    assert np.array_equal(feature_rgb(features[order]), rgb[order])


def test_joint_colors_depend_on_the_other_images_and_those_per_image_do_not(features):
    alone = feature_rgb(features[:1])
    assert not np.array_equal(feature_rgb(features)[:1], alone)
    assert np.array_equal(feature_rgb(features, per_image=True)[:1], alone)


def test_basis_of_other_images(features):
    basis = fit_basis(features)
    assert np.array_equal(feature_rgb(features[1:2], basis=basis), feature_rgb(features)[1:2])
    with pytest.raises(ValueError, match="basis and per_image exclude each other"):
        feature_rgb(features, basis=basis, per_image=True)


@pytest.mark.parametrize("per_image", [False, True])
def test_masked_tokens_are_white(features, per_image):
    mask = torch.zeros(3, 8, 12, dtype=torch.bool)
    mask[:, 2:6, 3:9] = True
    rgb = feature_rgb(features, mask, per_image=per_image)
    assert (rgb[~mask.numpy()] == 255).all()
    assert (rgb[mask.numpy()] < 255).any(axis=-1).all()


def test_lightness_and_chroma_end_and_hue_turns_on():
    def color(*unit):
        return unit_to_rgb(torch.tensor(unit).view(1, 3, 1, 1))[0, 0, 0].tolist()

    assert color(1.5, 0.5, 0.2) == color(1.0, 0.5, 0.2) != color(0.9, 0.5, 0.2)
    assert color(0.5, -0.5, 0.2) == color(0.5, 0.0, 0.2) != color(0.5, 0.1, 0.2)
    assert color(0.5, 0.5, 1.25) == color(0.5, 0.5, 0.25) == color(0.5, 0.5, -0.75) != color(0.5, 0.5, 0.75)


def test_lightness_shows_the_first_component():
    """The strongest direction decides how light a token is, the third one only its hue."""
    across = torch.linspace(-1, 1, 32).expand(32, 32)
    features = torch.stack([4 * across, across.T, 0.1 * torch.cos(9 * across) * torch.sin(9 * across.T)])[None]
    lightness = rgb2lab(feature_rgb(features))[0, ..., 0]
    assert abs(np.corrcoef(lightness.ravel(), across.ravel())[0, 1]) > 0.99
