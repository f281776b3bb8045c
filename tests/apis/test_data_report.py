"""The report on a folder of custom data, and its contact sheet."""

import json

import numpy as np
import pytest
from helpers import data_formats as formats
from helpers.tool_runs import call_tool
from PIL import Image

from pe_dense.apis.data_report import find_task, report_data
from pe_dense.utils.errors import ConfigError
from pe_dense.visualization.contact_sheet import choose_samples, draw_contact_sheet


def write_classes(root):
    for number, name in enumerate(("bolt/a.jpg", "cog/b.jpg")):
        formats.save(root / name, formats.picture(number))
    return root


WRITERS = dict(
    yolo=("objects", formats.write_yolo),
    roboflow=("objects", formats.write_roboflow),
    masks=("semantic", formats.write_masks),
    depth=("depth", formats.write_depth),
    panoptic=("panoptic", formats.write_panoptic),
    classes=("classes", write_classes),
)


@pytest.mark.parametrize("name", WRITERS)
def test_every_task_is_recognized_and_drawn(tmp_path, name):
    task, write = WRITERS[name]
    root = write(tmp_path)
    assert find_task(root) == task
    report = report_data(root)
    assert not report.has_problems
    assert "image size: 64 x 48 px" in report.lines
    sheet = draw_contact_sheet(report.data, 4)
    assert sheet.width > 600
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100


def test_counts_by_class_and_split(tmp_path):
    root = formats.write_yolo(tmp_path)
    formats.text(root / "labels/val/5.txt", "")
    lines = report_data(root).lines
    assert lines[1:6] == [
        "class  train objects  train images  val objects  val images",
        "bolt               3             3            1           1",
        "cog                3             3            1           1",
        "images without objects: train 0, val 1",
        "objects with a mask: 8 of 8",
    ]


def test_pixels_by_class(tmp_path):
    lines = report_data(formats.write_masks(tmp_path, 3)).lines
    shares = [np.mean([(formats.label_map(number) == label).mean() for number in (0, 1)]) for label in range(3)]
    rows = [line.split() for line in lines[2:5]]
    assert [row[:3] for row in rows] == [
        [name, f"{share:.1%}", count]
        for name, share, count in zip(("background", *formats.NAMES), shares, ("2", "2", "1"), strict=True)
    ]


def test_all_problems_are_in_the_report(tmp_path):
    root = formats.write_yolo(tmp_path)
    formats.text(root / "labels/train/0.txt", "9 0.5 0.5 0.2 0.2\n")
    formats.text(root / "labels/train/1.txt", "0 0.5 0.5 0.2 0.2 0.9\n")
    report = report_data(root)
    assert report.has_problems
    assert "problem: class numbers outside of 0..1: 1 (labels/train/0.txt line 1: 9)" in report.lines
    assert "repaired: confidences after boxes ignored: 1 (labels/train/1.txt line 1)" in report.lines


@pytest.mark.parametrize("name", ["voc", "labelme"])
def test_folders_without_a_valid_file(tmp_path, name):
    formats.save(tmp_path / "0.jpg", formats.picture(0))
    content = "<annotation><object>" if name == "voc" else '{"shapes": ['
    formats.text(tmp_path / f"0.{'xml' if name == 'voc' else 'json'}", content)
    report = report_data(tmp_path)
    assert report.has_problems
    (line,) = report.lines
    assert "has 1 problem: files that are not valid" in line


def test_images_that_differ_from_cocos_file(tmp_path):
    root = formats.write_coco(tmp_path)
    (root / "images/1.jpg").unlink()
    Image.new("RGB", (10, 20)).save(root / "images/2.jpg")
    lines = report_data(root).lines
    assert "problem: images that do not exist: 1 (train id 1: 1.jpg)" in lines
    assert "problem: images of another size than annotated: 1 (2.jpg: 10 x 20 px, not 64 x 48)" in lines
    (root / "export.json").write_text(json.dumps(dict(formats.coco_content(range(6)), categories=[])))
    report = report_data(root)
    assert report.has_problems
    assert "'categories' is empty" in report.lines[0]


def test_unknown_folders(tmp_path):
    formats.save(tmp_path / "a.jpg", formats.picture(0))
    with pytest.raises(ConfigError, match="has 1 images, but no annotations of a known format"):
        report_data(tmp_path)


def test_samples_show_every_class():
    labels = {f"{i}": [0] for i in range(50)} | {"rare": [1], "empty": []}
    assert choose_samples(labels, 3) == ["0", "1", "rare"]
    assert choose_samples({}, 4) == []
    assert len(choose_samples(labels, 100)) == 52


def test_command(tmp_path):
    root = formats.write_masks(tmp_path / "land", 3)
    out = tmp_path / "sheet.png"
    done = call_tool("data", root, "--out", out, "--samples", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{root}: semantic masks, 3 classes; train 2 images, val 1 images\n")
    assert done.stdout.endswith(f"samples: {out}\n")
    colors = np.asarray(Image.open(out)).reshape(-1, 3)
    assert (colors == (128, 0, 0)).all(1).any()  # the legend
    assert "exists: name another file" in call_tool("data", root, "--out", out).stderr
    formats.text(root / "classes.txt", "background\n")
    done = call_tool("data", root, "--out", out, "--overwrite")
    assert done.returncode == 1
    assert "problem: values outside of [0, 255]" in done.stdout
