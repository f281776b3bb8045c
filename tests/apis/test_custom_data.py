"""Train, test and predict on every format of custom data."""

import json

import pytest
from helpers import data_formats as formats
from helpers.custom_runs import train_test_predict, write_config

from pe_dense.utils.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("configs") / "detector.py", "shapes_maskrcnn_pe_tiny")


@pytest.fixture(scope="module")
def box_detector(tmp_path_factory):
    """A detector that learns boxes only."""
    path = tmp_path_factory.mktemp("configs") / "boxes.py"
    return write_config(path, "shapes_maskrcnn_pe_tiny", without_masks=True)


@pytest.mark.parametrize("name", ["coco", "lvis", "roboflow", "yolo", "voc"])
def test_detectors(tmp_path, detector, box_detector, name):
    data = getattr(formats, f"write_{name}")(tmp_path / "data")
    picture = next(data.rglob("0.jpg"))
    metrics, drawn = train_test_predict(box_detector if name == "voc" else detector, data, tmp_path, picture)
    assert any(key.endswith(("bbox_mAP", "bbox_AP")) for key in metrics), metrics
    assert drawn["image"] == str(picture)
    assert {item["category"] for item in drawn["objects"]} <= set(formats.NAMES)
    meta = read_checkpoint(tmp_path / "run")["meta"]["dataset_meta"]
    assert tuple(meta["classes"]) == formats.NAMES
    tested = next(iter((tmp_path / "test/data").glob("test_*.json")), None)
    if name == "lvis":
        assert tested is None  # the file of the data is used as it is
        return
    found = formats.boxes_of(json.loads(tested.read_text()))
    if name == "coco":  # the split of the run is used
        assert list(found) == json.loads((tmp_path / "run/data/split.json").read_text())["val"]
        assert not (tmp_path / "test/data/split.json").exists()
    else:
        assert found == formats.expected_boxes([5] if name == "roboflow" else [4, 5])
