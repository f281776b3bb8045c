"""Read objects of every format into COCO's form."""

import shutil

import pytest
from helpers import data_formats as formats

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.object_reader import read_objects
from pe_dense.utils.errors import ConfigError


@pytest.mark.parametrize("name", ["coco", "roboflow", "yolo", "voc", "labelme"])
def test_every_format_has_the_same_objects(tmp_path, name):
    data = read_objects(getattr(formats, f"write_{name}")(tmp_path))
    assert data.classes == formats.NAMES
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    assert found == formats.expected_boxes(range(6))


def test_reports_format_and_counts(tmp_path):
    data = read_objects(formats.write_roboflow(tmp_path))
    counts = "train 4 images, 6 objects, val 1 images, 2 objects, test 1 images, 2 objects"
    assert data.describe() == f"{tmp_path}: Roboflow COCO format, 2 classes; {counts}"
    (line,) = data.findings.lines()
    assert line.startswith("repaired: placeholder category 'parts' without objects removed: 3 (")


def test_lvis_files_are_used_as_they_are(tmp_path):
    data = read_objects(formats.write_lvis(tmp_path))
    assert data.format == "LVIS"
    assert data.splits["train"].path == tmp_path / "annotations/lvis_train.json"
    assert data.splits["test"] is data.splits["val"]


def test_several_formats(tmp_path):
    formats.write_yolo(tmp_path)
    formats.write_voc(tmp_path)
    with pytest.raises(DataError, match=r"several formats \(YOLO and Pascal VOC\)"):
        read_objects(tmp_path)
    assert read_objects(tmp_path / "data.yaml").format == "YOLO"
    formats.write_lvis(tmp_path)
    data = read_objects(tmp_path)
    assert data.format == "LVIS"
    assert "annotations in several formats" in data.findings.notes[0]


def test_folders_without_annotations(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_objects(tmp_path / "absent")
    formats.save(tmp_path / "0.jpg", formats.picture(0))
    with pytest.raises(ConfigError, match="no annotation file for train"):
        read_objects(tmp_path)


@pytest.mark.parametrize("name", ["yolo", "labelme"])
def test_training_needs_images_for_training(tmp_path, name):
    if name == "yolo":
        shutil.rmtree(formats.write_yolo(tmp_path, yaml=False) / "images/train")
    else:
        formats.save(tmp_path / "val/0.jpg", formats.picture(0))
        formats.text(tmp_path / "val/0.json", '{"shapes": []}')
    with pytest.raises(DataError, match=f"{tmp_path} has no images for training"):
        read_objects(tmp_path, ("train", "val"))
    assert list(read_objects(tmp_path, ("test",)).splits) == ["test"]


def test_names_of_windows_in_cocos_files(tmp_path):
    formats.write_coco(tmp_path)
    path = tmp_path / "export.json"
    path.write_text(path.read_text().replace('"0.jpg"', r'"C:\\data\\images\\0.jpg"'))
    data = read_objects(tmp_path)
    names = [image["file_name"] for split in ("train", "val") for image in data.splits[split].content["images"]]
    assert sorted(names) == [f"images/{number}.jpg" for number in range(6)]
    assert data.findings.lines()[0] == "repaired: file names of another machine or of Windows: 1 (export.json id 0)"
