"""Typed results: selection, and the formats of annotations."""

import json
import sys
from unittest import mock

import numpy as np
import pytest
from pycocotools import mask as rle

from pe_dense.runtime import DepthMap, Detections, Embeddings, LabelMap, Segment, Segments
from pe_dense.runtime.thresholds import check_thresholds, parse_thresholds
from pe_dense.utils.errors import InputError, UserError

MASKS = np.zeros((3, 40, 80), bool)
MASKS[0, 10:30, 20:60], MASKS[1, 0:4, 0:8] = True, True  # the last one is empty
BOXES = np.array([[20, 10, 60, 30], [0.5, 0.25, 8, 4], [70, 30, 80, 40]], np.float32)
NAMES = ("cat", "dog", "cat")


def detections(masks=MASKS):
    scores = np.array([0.9, 0.5, 0.2], np.float32)
    labels = np.array([0, 1, 0])
    return Detections(BOXES, scores, labels, NAMES, masks, classes=("cat", "dog"), size=(40, 80))


def test_above():
    found = detections()
    assert found.above(0.5).names == ("cat", "dog")
    assert found.above({"cat": 0.3}).names == ("cat", "dog")
    assert found.above({"dog": 0.6, "*": 0.1}).names == ("cat", "cat")
    assert found.above(0.5).masks.shape == (2, 40, 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", 0.5),
        ("person=0.6,traffic light=.4", {"person": 0.6, "traffic light": 0.4}),
        ("0.3,a=b=0.5", {"*": 0.3, "a=b": 0.5}),
    ],
)
def test_thresholds(text, expected):
    assert parse_thresholds(text) == expected


@pytest.mark.parametrize("text", ["1.5", "x", "cat=", "=0.5", "cat=nan", "0.5,0.6", "cat=0.1,cat=0.2", "", "1_0"])
def test_other_thresholds(text):
    with pytest.raises(InputError, match="threshold"):
        parse_thresholds(text)


def test_thresholds_of_unknown_classes():
    check_thresholds({"*": 0.5, "cat": 0.1}, ("cat", "dog"))
    with pytest.raises(
        InputError, match="threshold of 'cats', which is not one of the model's 2 classes; did you mean"
    ):
        check_thresholds({"cats": 0.5}, ("cat", "dog"))


def test_coco():
    first, *_ = annotations = detections().to_coco(image_id=7, first_id=3)
    assert [one["id"] for one in annotations] == [3, 4, 5]
    assert first["image_id"] == 7 and first["category_id"] == 1
    assert first["bbox"] == [20, 10, 40, 20] and first["area"] == 800
    assert (rle.decode(first["segmentation"]).astype(bool) == MASKS[0]).all()
    assert detections(None).to_coco()[1]["area"] == 7.5 * 3.75


def test_yolo():
    assert detections(None).to_yolo().splitlines()[:2] == [
        "0 0.500000 0.500000 0.500000 0.500000",
        "1 0.053125 0.053125 0.093750 0.093750",
    ]
    lines = detections().to_yolo().splitlines()
    assert len(lines) == 2  # an empty mask has no outline
    values = np.array(lines[0].split()[1:], float).reshape(-1, 2)
    assert {tuple(point) for point in values} == {(0.25, 0.25), (0.25, 0.75), (0.75, 0.75), (0.75, 0.25)}
    unknown = Detections(BOXES, np.ones(3), np.zeros(3, int), ())
    with pytest.raises(InputError, match=r"call to_yolo\(\(height, width\)\)"):
        unknown.to_yolo()
    assert unknown.to_yolo((40, 80)).startswith("0 0.5")


def test_supervision():
    built = mock.Mock()
    with mock.patch.dict(sys.modules, supervision=built):
        detections().to_supervision()
    given = built.Detections.call_args.kwargs
    assert (given["xyxy"] == BOXES).all() and given["class_id"].tolist() == [0, 1, 0]
    assert given["data"]["class_name"].tolist() == list(NAMES)
    with (
        mock.patch.dict(sys.modules, supervision=None),
        pytest.raises(UserError, match="supervision is not installed: pip install supervision"),
    ):
        detections().to_supervision()


def test_boxes_of_masks():
    assert detections().mask_boxes().tolist() == [[20, 10, 60, 30], [0, 0, 8, 4], [70, 30, 80, 40]]


def test_json(tmp_path):
    content = json.loads(detections().save(tmp_path / "a.json").read_text())
    assert [one["category"] for one in content["objects"]] == list(NAMES)
    assert set(content["objects"][0]) == {"category", "label", "score", "bbox", "mask"}
    labels = LabelMap(np.array([[1, 1], [1, 0]]), ("sky", "sea"))
    assert labels.to_json()["classes"][0] == dict(name="sea", label=1, share=0.75)
    assert DepthMap(np.array([[1.0, 3.0, 2.0]])).to_json() == dict(depth=dict(min=1.0, median=2.0, max=3.0))
    segment = Segment(5, 1, "sea", False, 3, (0, 0, 2, 2))
    (info,) = Segments(np.full((2, 2), 5), (segment,), ("sky", "sea")).to_json()["segments_info"]
    assert info == dict(id=5, category_id=1, isthing=0, area=3, bbox=[0, 0, 2, 2], iscrowd=0, category="sea")
    with pytest.raises(InputError, match="Embeddings has no JSON form: save it as .npz"):
        Embeddings(np.ones(3)).save(tmp_path / "b.json")
