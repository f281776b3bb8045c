"""Layouts and kinds of semantic masks and their typical mistakes."""

import numpy as np
import pytest
from helpers import data_formats as formats
from PIL import Image

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.map_reader import read_masks, write_pairs
from pe_dense.datasets.map_files import MapFiles

SPLITS = ("train", "val", "test")
NAMES = ("background", *formats.NAMES)


def labels_of(data, work_dir):
    """Labels that the data set loads, by number of the picture."""
    found = {}
    for split in ("train", "val"):
        path = write_pairs(work_dir, split, data.splits[split])
        reader = dict(type="pe_dense.LoadLabelMap", **data.reader)
        dataset = MapFiles(
            str(path),
            data_root=str(data.root),
            metainfo=dict(classes=data.classes),
            pipeline=[dict(type="pe_dense.LoadImage"), reader],
        )
        for item in dataset:
            found[int(item["img_path"].rpartition("/")[2].split(".")[0])] = item["gt_seg_map"]
    return found


def assert_same_labels(data, work_dir, count=6):
    found = labels_of(data, work_dir)
    assert sorted(found) == list(range(count))
    for number, labels in found.items():
        np.testing.assert_array_equal(labels, formats.label_map(number))


@pytest.mark.parametrize("kind", ["index", "palette", "rgb"])
def test_kinds_of_masks(tmp_path, kind):
    data = read_masks(formats.write_masks(tmp_path / "data", kind=kind), SPLITS)
    assert data.classes == NAMES
    assert data.describe() == f"{tmp_path / 'data'}: semantic masks, 3 classes; train 4 images, val 2 images"
    assert_same_labels(data, tmp_path)


def test_polygons_of_objects(tmp_path):
    data = read_masks(formats.write_coco(tmp_path / "data"), SPLITS, write_to=tmp_path / "run")
    assert data.classes == NAMES
    assert_same_labels(data, tmp_path)


def test_binary_masks(tmp_path):
    data = read_masks(formats.write_masks(tmp_path / "data", kind="binary"), SPLITS)
    assert data.classes == ("background", "foreground")
    np.testing.assert_array_equal(labels_of(data, tmp_path)[0], formats.label_map(0) > 0)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{split}/images/{n}.jpg", "{split}/masks/{n}.png"),
        ("img_dir/{split}/{n}.jpg", "ann_dir/{split}/{n}.png"),
        ("leftImg8bit/{split}/a_{n}_leftImg8bit.png", "gtFine/{split}/a_{n}_gtFine_labelTrainIds.png"),
        ("{split}/{n}.jpg", "{split}/{n}_mask.png"),
        ("JPEGImages/{n}.jpg", "SegmentationClass/{n}.png"),
    ],
)
def test_layouts(tmp_path, image, mask):
    lists = dict(train=[], val=[])
    for n in range(3):
        split = formats.split_of(n, 3)
        formats.save(tmp_path / image.format(split=split, n=n), formats.picture(n))
        formats.save(tmp_path / mask.format(split=split, n=n), formats.label_map(n))
        lists[split].append(str(n))
    if "{split}" not in mask:
        for split, numbers in lists.items():
            formats.text(tmp_path / f"ImageSets/Segmentation/{split}.txt", "\n".join(numbers))
    data = read_masks(tmp_path, SPLITS)
    assert data.splits["val"] == [(image.format(split="val", n=2), mask.format(split="val", n=2))]
    assert len(data.splits["train"]) == 2
    assert data.classes == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", '{"0": "background", "1": "bolt", "2": "cog"}'),
        ("classes.json", '["background", "bolt", "cog"]'),
        ("classes.json", '[{"name": "background", "id": 0}, {"name": "bolt", "id": 1}, {"name": "cog", "id": 2}]'),
        ("classes.csv", "value,name\n0,background\n1,bolt\n2,cog\n"),
        ("classes.txt", "\ufeffbackground\r\nbolt \r\ncog\r\n"),
    ],
)
def test_tables_of_classes(tmp_path, name, content):
    root = formats.write_masks(tmp_path, 3)
    (root / "classes.txt").unlink()
    formats.text(root / name, content)
    assert read_masks(root, SPLITS).classes == NAMES


def change(root, number, edit):
    path = next(root.glob(f"masks/*/{number}.png"))
    values = edit(np.array(Image.open(path)))
    Image.fromarray(values).save(path)


def test_values_with_gaps_and_unlabeled_pixels(tmp_path):
    root = formats.write_masks(tmp_path / "data", 3)
    for number in range(3):
        change(root, number, lambda values: np.array([255, 3, 40], np.uint8)[values])
    (root / "classes.txt").unlink()
    data = read_masks(root, SPLITS)
    assert data.classes == ("value_3", "value_40")
    assert "values with gaps and no table of classes: 3, 40 are the classes" in data.findings.notes
    formats.text(root / "classes.json", '{"bolt": 3, "cog": 40, "unused": 41}')
    data = read_masks(root, SPLITS)
    assert data.classes == ("bolt", "cog", "unused")
    assert "1 of 3 classes occur in no mask: unused" in data.findings.notes
    expected = np.array([255, 0, 1], np.uint8)[formats.label_map(0)]
    np.testing.assert_array_equal(labels_of(data, tmp_path)[0], expected)


def test_values_that_count_from_one(tmp_path):
    root = formats.write_masks(tmp_path / "data", 3)
    formats.text(root / "classes.txt", "bolt\ncog\n")
    data = read_masks(root, SPLITS)
    assert "repaired: values that count from 1: 0 read as pixels without a class: 1 (3 masks)" in data.findings.lines()
    expected = np.array([255, 0, 1], np.uint8)[formats.label_map(1)]
    np.testing.assert_array_equal(labels_of(data, tmp_path)[1], expected)


def test_gray_masks_stored_as_rgb(tmp_path):
    root = formats.write_masks(tmp_path / "data", 3)
    for number in range(3):
        change(root, number, lambda values: np.repeat(values[..., None], 3, 2))
    assert_same_labels(read_masks(root, SPLITS), tmp_path, 3)


def test_the_void_color_is_no_class(tmp_path):
    root = formats.write_masks(tmp_path, 3, kind="rgb")
    path = root / "classes.csv"
    path.write_text(path.read_text().replace("background", "void"))
    data = read_masks(root, SPLITS)
    assert data.classes == formats.NAMES
    assert data.reader["colors"] == {"#5a5a5a": 255, "#c82828": 0, "#283cdc": 1}


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda values: values + 5, "values outside of [0, 1, 2, 255]: "),
        (lambda values: values[:-2], "masks of another size than their image: 1 (masks/train/0.png: 64 x 46, images/"),
        (lambda values: np.stack([values, values * 9, values], -1), "masks of color among masks of another kind: 1"),
    ],
)
def test_mistakes(tmp_path, edit, problem):
    root = formats.write_masks(tmp_path, 3)
    change(root, 0, edit)
    with pytest.raises(DataError) as error:
        read_masks(root, SPLITS)
    assert problem in str(error.value)
    assert "masks/train/0.png" in str(error.value)


def test_colors_outside_of_the_table(tmp_path):
    root = formats.write_masks(tmp_path, 3, kind="rgb")
    change(root, 0, lambda values: np.where(np.arange(64)[None, :, None] == 0, np.uint8(7), values))
    with pytest.raises(
        DataError, match=r"colors outside of the table of classes: 1 \(masks/train/0.png: #070707, 48 pix"
    ):
        read_masks(root, SPLITS)
    (root / "classes.csv").unlink()
    with pytest.raises(DataError, match=r"colors without a table: write classes.csv .*#5a5a5a"):
        read_masks(root, SPLITS)


def test_missing_and_extra_files(tmp_path):
    root = formats.write_masks(tmp_path)
    (root / "masks/train/0.png").unlink()
    formats.save(root / "masks/train/99.png", formats.label_map(0))
    lines = read_masks(root, SPLITS).findings.lines()
    assert "repaired: images without a map left out: 1 (images/train/0.jpg)" in lines
    assert "repaired: maps without an image ignored: 1 (masks/train/99.png)" in lines


def test_images_that_no_list_names(tmp_path):
    formats.write_masks(tmp_path, 4, split=False)
    formats.text(tmp_path / "train.txt", "0.jpg\n1\n9\n")
    formats.text(tmp_path / "val.txt", "images\\2.jpg masks\\2.png\n")
    data = read_masks(tmp_path, SPLITS)
    assert {split: [image for image, _ in pairs] for split, pairs in data.splits.items()} == {
        "train": ["images/0.jpg", "images/1.jpg"],
        "val": ["images/2.jpg"],
        "test": ["images/2.jpg"],
    }
    assert data.findings.repairs == {"listed images without a map left out": ["train.txt line 3: 9"]}
    assert data.findings.notes == ["1 of 4 images are not in train.txt, val.txt and are left out, such as images/3.jpg"]


def test_jpeg_masks(tmp_path):
    for number in range(3):
        formats.save(tmp_path / f"images/{number}.jpg", formats.picture(number))
        formats.save(tmp_path / f"masks/{number}.jpg", formats.label_map(number))
    with pytest.raises(DataError, match="masks stored as JPEG, whose compression changes labels: use PNG: 3"):
        read_masks(tmp_path, SPLITS)
