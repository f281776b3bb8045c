"""Preprocessing inside of a graph, against OpenCV and Pillow."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pe_dense.export import Preprocessing
from pe_dense.export.preprocess import PreprocessedGraph
from pe_dense.runtime.image import normalized, place

HALF = (127.5, 127.5, 127.5)


class Echo(nn.Module):
    """A graph that returns its inputs."""

    output_names = ("images", "sizes")
    uses_sizes = True

    def __init__(self, **settings):
        super().__init__()
        self.preprocessing = Preprocessing(mean=HALF, std=HALF, **settings)

    def forward(self, images, sizes):
        return images, sizes


def photo(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (20, 12)])
def test_letterbox_is_opencvs(height, width):
    """The detectors' resizing keeps the aspect ratio; the rest of the square is 0."""
    image = photo(height, width)
    graph = PreprocessedGraph(Echo(size=(64, 64)))
    found, sizes = graph(torch.from_numpy(image))
    scale = 64 / max(height, width)
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    assert sizes.tolist() == [[rows, columns]]
    expected = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    pixels = found[0, :, :rows, :columns].permute(1, 2, 0) * 127.5 + 127.5
    assert np.abs(pixels.numpy() - expected).max() <= 1.01  # OpenCV rounds weights to 11 bits
    assert not found[0, :, rows:].any() and not found[0, :, :, columns:].any()


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (64, 32)])
@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (1, 1), (2, 300), (300, 2)])
def test_letterbox_is_the_runtimes(size, height, width):
    """On inputs of any shape; a thin image keeps a row of pixels."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found, sizes = PreprocessedGraph(Echo(size=size))(torch.from_numpy(image))
    where, _ = place(height, width, size, "letterbox", 1)
    assert sizes.tolist() == [[where.rows, where.columns]]
    assert where.rows == size[0] or where.columns == size[1]
    expected = normalized(image, where, size, HALF, HALF, antialias=False)
    assert np.abs(found[0].numpy() - expected).max() <= 1.01 / 127.5


@pytest.mark.parametrize(("height", "width"), [(60, 100), (20, 12)])
def test_squash_is_pillows(height, width):
    image = photo(height, width)
    found, _ = PreprocessedGraph(Echo(size=(32, 48), resize="squash", antialias=True))(torch.from_numpy(image))
    expected = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR))
    pixels = found[0].permute(1, 2, 0) * 127.5 + 127.5
    assert np.abs(pixels.numpy() - expected).max() <= 1.01  # Pillow rounds between its two passes


def test_invalid_settings():
    with pytest.raises(ValueError, match="30 x 32 px is not a multiple of 4"):
        Preprocessing((30, 32), HALF, HALF, stride=4)
    with pytest.raises(ValueError, match="'crop' is not one of"):
        Preprocessing((32, 32), HALF, HALF, resize="crop")
