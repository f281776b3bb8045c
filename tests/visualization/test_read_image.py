"""Images of all formats and modes."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.utils.image import read_image
from pe_dense.visualization.features import crop_square, to_input


@pytest.fixture
def half():
    """20 x 10 px, red on the left and blue on the right."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:] = (200, 0, 0), (0, 0, 200)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("orientation", "size", "red"),
    [(1, (20, 10), (0, 5)), (3, (20, 10), (19, 5)), (6, (10, 20), (5, 0)), (8, (10, 20), (5, 19))],
)
def test_exif_orientation_is_honored(tmp_path, half, orientation, size, red):
    exif = Image.Exif()
    exif[0x0112] = orientation
    half.save(tmp_path / "a.png", exif=exif)
    photo = read_image(tmp_path / "a.png")
    assert photo.size == size
    assert photo.getpixel(red) == (200, 0, 0)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 100, 0, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("LA", (4, 4), (0, 51)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").getpixel((0, 0)) == (204, 204, 204)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "c.png", transparency=1)
    assert read_image(tmp_path / "c.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, 77),
        ("1", 1, 255),
        ("I;16", 257 * 77, 77),
        ("F", 0.2, 51),
        ("F", 77.0, 77),
        ("CMYK", (0, 0, 0, 155), 100),
    ],
)
def test_other_modes(tmp_path, mode, value, expected):
    Image.new(mode, (4, 4), value).save(tmp_path / "a.tif")
    photo = read_image(tmp_path / "a.tif")
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == (expected,) * 3


def test_unreadable_files(tmp_path, half):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg is not a readable image \(not one of JPEG, PNG, "):
        read_image(tmp_path / "text.jpg")
    half.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    with pytest.raises(ValueError, match=r"cut\.jpg is not a readable image"):
        read_image(tmp_path / "cut.jpg")
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg does not exist"):
        read_image(tmp_path / "absent.jpg")


def test_bombs_are_refused(tmp_path, half, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    half.save(tmp_path / "a.png")
    half.resize((40, 10)).save(tmp_path / "b.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"a\.png is not a readable image \(20 x 10 px, more than 0 million\)"):
            read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"b\.png is not a readable image .*exceeds limit of 300 pixels"):
        read_image(tmp_path / "b.png")


def test_middle_square(half):
    square = crop_square(half, 10)
    assert square.size == (10, 10)
    assert square.getpixel((0, 5)) == (200, 0, 0)
    assert square.getpixel((9, 5)) == (0, 0, 200)


def test_input_is_normalized_as_towers_take_it():
    images = to_input(Image.new("RGB", (3, 2), (0, 255, 51)))
    assert images.shape == (1, 3, 2, 3)
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
