"""Masks from files and by the first principal component."""

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.visualization.features import foreground_masks, read_mask


def save(path, values, mode=None):
    image = Image.fromarray(np.asarray(values, np.uint8), mode)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(path)
    return path


@pytest.fixture
def left(tmp_path):
    """40 x 20 px, the left 15 white."""
    values = np.zeros((20, 40))
    values[:, :15] = 255
    return save(tmp_path / "left.png", values)


@pytest.mark.parametrize("image_size", [(40, 20), (640, 320), (8, 4), (641, 318)])
def test_masks_of_other_sizes_fit(left, image_size):
    mask = read_mask(left, image_size, (2, 4))
    # Tokens are 10 px wide: the second one is half white.
    assert mask.tolist() == [[[True, True, False, False]] * 2]


def test_half_a_token_counts(left):
    assert read_mask(left, (40, 20), (1, 2)).tolist() == [[[True, False]]]  # 15 of 20 px, and none


def test_files_of_numbers(tmp_path):
    """Class and object numbers are small, or indices of a palette: all but 0 count."""
    values = np.zeros((4, 4))
    values[:2, :2], values[2:, 2:] = 1, 2
    for mode in (None, "P"):
        mask = read_mask(save(tmp_path / f"{mode}.png", values, mode), (4, 4), (2, 2))
        assert mask.tolist() == [[[True, False], [False, True]]]


def test_color_and_bilevel_masks(tmp_path, left):
    Image.open(left).convert("RGB").save(tmp_path / "rgb.png")
    Image.open(left).convert("1").save(tmp_path / "one.png")
    cut_out = Image.new("L", (40, 20), 255)
    cut_out.putalpha(Image.open(left))
    cut_out.save(tmp_path / "alpha.png")
    for name in ("rgb", "one", "alpha"):
        assert torch.equal(read_mask(tmp_path / f"{name}.png", (40, 20), (2, 4)), read_mask(left, (40, 20), (2, 4)))


def test_bad_masks(tmp_path, left):
    with pytest.raises(ValueError, match=r"left\.png is 40 x 20 px, but its image is 20 x 40 px: .* same aspect ratio"):
        read_mask(left, (20, 40), (4, 2))
    with pytest.raises(ValueError, match=r"empty\.png covers none of the 2 x 4 tokens"):
        read_mask(save(tmp_path / "empty.png", np.zeros((20, 40))), (40, 20), (2, 4))
    with pytest.raises(FileNotFoundError, match=r"absent\.png does not exist"):
        read_mask(tmp_path / "absent.png", (40, 20), (2, 4))


@pytest.mark.parametrize("sign", [-1, 1])
def test_foreground_is_in_the_center(sign):
    """Two images with an object each; which way the component points must not matter."""
    generator = torch.Generator().manual_seed(0)
    direction = sign * torch.randn(16, 1, 1, generator=generator)
    features, expected = [], []
    for height, width in ((12, 16), (10, 10)):
        inside = torch.zeros(1, height, width, dtype=torch.bool)
        inside[:, 3:8, 3:7] = True
        noise = 0.1 * torch.randn(1, 16, height, width, generator=generator)
        features.append(noise + 4 * direction * inside[:, None])
        expected.append(inside)
    for mask, inside in zip(foreground_masks(features), expected, strict=True):
        assert mask.dtype == torch.bool
        assert (mask != inside).float().mean() < 0.06  # the low-pass rounds corners
