"""Annotations that predictions are written as are read as custom data: the same objects within rounding."""

import numpy as np
import pytest
from helpers import data_formats as formats

from pe_dense.apis.label_files import FORMATS
from pe_dense.datasets.formats.map_reader import read_masks, write_pairs
from pe_dense.datasets.formats.object_reader import read_objects
from pe_dense.datasets.map_files import MapFiles
from pe_dense.runtime.results import Detections

SPLITS = ("train", "val", "test")


def detections(number, *, masks):
    """Objects of a picture as a model predicts them."""
    objects = formats.scene(number)
    boxes = np.array([(x, y, x + w, y + h) for _, x, y, w, h in objects], np.float32)
    labels = np.array([label for label, *_ in objects])
    found = np.zeros((len(objects), *formats.SIZE[::-1]), bool)
    for mask, (_, x, y, w, h) in zip(found, objects, strict=True):
        mask[y : y + h, x : x + w] = True
    names = tuple(formats.NAMES[label] for label in labels)
    scores = np.full(len(objects), 0.9, np.float32)
    return Detections(
        boxes, scores, labels, names, found if masks else None, classes=formats.NAMES, size=formats.SIZE[::-1]
    )


def write(folder, format, *, masks=True, count=4):
    writer = FORMATS[format](folder / "labels", formats.NAMES)
    for number in range(count):
        pixels = formats.picture(number)
        image = formats.save(folder / f"photos/{number}.jpg", pixels)
        writer.add(str(number), image, pixels, detections(number, masks=masks))
    writer.finish()
    return folder / "labels"


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("format", ["coco", "yolo", "labelme"])
def test_objects(tmp_path, format, masks):
    data = read_objects(write(tmp_path, format, masks=masks), masks=masks or None)
    assert data.classes == formats.NAMES
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    expected = formats.expected_boxes(range(4))
    assert found.keys() == expected.keys()
    for name, objects in expected.items():
        assert [label for label, _ in found[name]] == [label for label, _ in objects]
        np.testing.assert_allclose([box for _, box in found[name]], [box for _, box in objects], atol=0.02)


def test_masks(tmp_path):
    root = write(tmp_path, "masks")
    data = read_masks(root, SPLITS)
    assert data.classes == ("background", *formats.NAMES)
    path = write_pairs(tmp_path, "train", data.splits["train"])
    reader = dict(type="pe_dense.LoadLabelMap", **data.reader)
    dataset = MapFiles(
        str(path),
        data_root=str(root),
        metainfo=dict(classes=data.classes),
        pipeline=[dict(type="pe_dense.LoadImage"), reader],
    )
    assert len(dataset) == 3
    for item in dataset:
        number = int(item["img_path"].rpartition("/")[2].split(".")[0])
        np.testing.assert_array_equal(item["gt_seg_map"], formats.label_map(number))
