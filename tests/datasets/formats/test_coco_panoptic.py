"""COCO's panoptic format and its typical mistakes."""

import json

import numpy as np
import pytest
from helpers import data_formats as formats
from PIL import Image

from pe_dense.datasets.formats.coco_panoptic import read_panoptic
from pe_dense.utils.errors import ConfigError

SPLITS = ("train", "val", "test")


def test_things_come_first(tmp_path):
    data = read_panoptic(formats.write_panoptic(tmp_path), SPLITS)
    assert (data.things, data.stuff) == (formats.NAMES, ("ground",))
    assert [entry["id"] for entry in data.splits["train"].content["categories"]] == [1, 2, 0]
    assert (data.splits["val"].images, data.splits["val"].maps) == ("images/val", "annotations/panoptic_val")
    counts = "train 4 images, 10 segments, val 2 images, 6 segments"
    assert data.describe() == f"{tmp_path}: COCO panoptic format, 2 classes of things, 1 of stuff; {counts}"


def test_a_single_file_is_split(tmp_path):
    root = formats.write_panoptic(tmp_path)
    (root / "annotations/panoptic_val.json").unlink()
    data = read_panoptic(root, SPLITS)
    assert [len(data.splits[split].content["images"]) for split in ("train", "val")] == [3, 1]
    assert len(data.splits["val"].content["annotations"]) == 1


def edit(root, change):
    path = root / "annotations/panoptic_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"].pop(), "images without segments: 1 .panoptic_train.json id 3"),
        (lambda c: c["annotations"][0]["segments_info"].pop(), "that JSON does not list: 1 .0.png: id"),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(id=9),
            "that no pixel of the PNG file has: 1 .0.png: id 9",
        ),
        (lambda c: c["images"][0].update(width=5), "JSON of different sizes: 1 .0.jpg: 64 x 48 px, in JSON 5 x 48"),
        (lambda c: c["categories"][1].update(name="cog"), "1 category names occur several times: 'cog'"),
        (lambda c: c["annotations"][0].update(file_name="x.png"), "file_name is 'x.png', must be '0.png'"),
    ],
)
def test_mistakes(tmp_path, change, message):
    root = formats.write_panoptic(tmp_path)
    edit(root, change)
    with pytest.raises(ConfigError, match=message):
        read_panoptic(root, SPLITS)


def test_missing_and_wrong_files(tmp_path):
    root = formats.write_panoptic(tmp_path)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(root / "annotations/panoptic_train/1.png")
    with pytest.raises(ConfigError, match="PNG files that are not RGB: 1 .1.png"):
        read_panoptic(root, SPLITS)
    (root / "annotations/panoptic_train/1.png").unlink()
    with pytest.raises(ConfigError, match="PNG files that do not exist: 1 .panoptic_train.json: 1.png"):
        read_panoptic(root, SPLITS)
    with pytest.raises(ConfigError, match="contains no file of panoptic annotations"):
        read_panoptic(formats.write_coco(tmp_path / "objects"), SPLITS)
