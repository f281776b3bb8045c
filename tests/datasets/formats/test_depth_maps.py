"""Kinds of depth maps and their typical mistakes."""

import numpy as np
import pytest
from helpers import data_formats as formats
from PIL import Image

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.map_reader import read_depth
from pe_dense.datasets.label_maps import LoadDepthMap

SPLITS = ("train", "val", "test")


def depth_of(data, number):
    options = {name: value for name, value in data.reader.items() if name != "max_depth"}
    paths = [path for pairs in data.splits.values() for image, path in pairs if image.endswith(f"/{number}.jpg")]
    return LoadDepthMap(**options).read(str(data.root / paths[0]))


@pytest.mark.parametrize("kind", ["png", "npy", "tiff"])
def test_kinds_of_maps(tmp_path, kind):
    data = read_depth(formats.write_depth(tmp_path, kind=kind), SPLITS)
    assert [len(data.splits[split]) for split in SPLITS] == [4, 2, 2]
    for number in range(6):
        np.testing.assert_allclose(depth_of(data, number), formats.depth_map(number), atol=6e-4)
    assert data.reader["max_depth"] == 4


def test_scale(tmp_path):
    root = formats.write_depth(tmp_path, 3, scale=1 / 256)
    data = read_depth(root, SPLITS)
    assert "integer depth maps read as millimeters" in data.findings.notes[0]
    np.testing.assert_allclose(depth_of(read_depth(root, SPLITS, scale=1 / 256), 0), formats.depth_map(0), atol=2e-3)
    formats.text(root / "depth.json", '{"scale": 0.00390625, "max_depth": 80}')
    data = read_depth(root, SPLITS)
    np.testing.assert_allclose(depth_of(data, 0), formats.depth_map(0), atol=2e-3)
    assert data.reader["max_depth"] == 80
    formats.text(root / "depth.json", '{"scal": 1}')
    with pytest.raises(DataError, match="must be an object with 'scale'"):
        read_depth(root, SPLITS)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.zeros((48, 64), np.uint8), "depth maps of 8 bits, must have 16 bits or be decimal: 1"),
        (np.zeros((40, 64), np.uint16), "depth maps of another size than their image: 1"),
        (np.zeros((48, 64, 3), np.uint8), r"depth maps that are not of one channel .colored pictures..: 1"),
    ],
)
def test_mistakes(tmp_path, values, problem):
    root = formats.write_depth(tmp_path, 3)
    Image.fromarray(values).save(root / "train/depth/0.png")
    with pytest.raises(DataError, match=rf"{problem} \(train/depth/0.png"):
        read_depth(root, SPLITS)


def test_mistakes_of_decimal_maps(tmp_path):
    root = formats.write_depth(tmp_path, 3, kind="npy")
    with pytest.raises(DataError, match="maps of decimal numbers are in meters and have no scale"):
        read_depth(root, SPLITS, scale=0.001)
    np.save(root / "train/depth/0.npy", -formats.depth_map(0))
    with pytest.raises(DataError, match=r"negative depths: 1 \(train/depth/0.npy: -4"):
        read_depth(root, SPLITS)
    np.save(root / "train/depth/0.npy", np.array([{}], object))
    with pytest.raises(DataError, match=r"depth maps that cannot be read: 1 \(train/depth/0.npy"):
        read_depth(root, SPLITS)
    for path in root.glob("*/depth/*.npy"):
        np.save(path, np.zeros((48, 64), np.float32))
    with pytest.raises(DataError, match="no map has a known depth: 1 .3 maps"):
        read_depth(root, SPLITS)
