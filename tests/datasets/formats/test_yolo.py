"""YOLO's layouts and their typical mistakes."""

import pytest
from helpers import data_formats as formats

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.object_reader import read_objects


@pytest.fixture
def root(tmp_path):
    return formats.write_yolo(tmp_path, 3, polygons=False, split=False)


def boxes(data):
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    return found


@pytest.mark.parametrize(
    "sources",
    [
        "train: ../images/train\nval: ../images/val\n",  # Roboflow's
        "path: C:\\Users\\me\\data\ntrain: images\\train\nval: images\\val\n",
        "path: /home/me/data\ntrain: images/train\nval: [images/val]\n",
        "train: train.txt\nval: val.txt\n",
    ],
)
def test_paths_of_data_yaml(tmp_path, sources):
    formats.write_yolo(tmp_path)
    for split, numbers in (("train", range(4)), ("val", (4, 5))):
        lines = [f"D:\\data\\images\\{split}\\{number}.jpg" for number in numbers]
        formats.text(tmp_path / f"{split}.txt", "\r\n".join(lines))
    formats.text(tmp_path / "data.yaml", f"{sources}names:\n  0: bolt\n  1: cog\n")
    data = read_objects(tmp_path)
    assert [len(data.splits[split].content["images"]) for split in ("train", "val")] == [4, 2]
    assert boxes(data) == formats.expected_boxes(range(6))


def test_labels_beside_the_images_without_names(tmp_path):
    for number in range(3):
        formats.save(tmp_path / f"{number}.jpg", formats.picture(number))
        formats.text(tmp_path / f"{number}.txt", formats.yolo_lines(number))
    data = read_objects(tmp_path)
    assert data.classes == ("class_0", "class_1")
    assert "no class names (data.yaml or classes.txt): named class_0, class_1, ..." in data.findings.notes


def test_names_of_classes_txt(tmp_path):
    data = read_objects(formats.write_yolo(tmp_path, yaml=False))
    assert data.classes == formats.NAMES
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    assert found == formats.expected_boxes(range(6))
    formats.text(tmp_path / "classes.txt", "bolt\n")
    with pytest.raises(DataError, match=r"class numbers outside of 0..0: 5 \(labels/train/1.txt line"):
        read_objects(tmp_path)


def test_polygons_become_masks(tmp_path):
    data = read_objects(formats.write_yolo(tmp_path))
    label, left, top, width, height = formats.scene(0)[0]
    item = data.splits["train"].content["annotations"][0]
    assert item["area"] == pytest.approx(width * height, rel=1e-3)
    assert item["segmentation"][0][:2] == pytest.approx([left, top], abs=1e-3)


def test_ids_with_gaps(root):
    formats.text(root / "data.yaml", "names: {0: bolt, 7: cog}\n")
    formats.text(root / "labels/0.txt", "7 0.5 0.5 0.2 0.2\n")
    for number in (1, 2):
        formats.text(root / f"labels/{number}.txt", "0 0.5 0.5 0.2 0.2\n")
    assert boxes(read_objects(root))["0.jpg"][0][0] == "cog"


@pytest.mark.parametrize(
    ("content", "repair"),
    [
        ("\ufeff1 0.5 0.5 0.25 0.5\n", "byte order mark ignored: 1 (labels/0.txt)"),
        ("1.0 0.5 0.5 0.25 0.5\n", "class numbers with a decimal point: 1 (labels/0.txt line 1)"),
        ("1, 0.5, 0.5, 0.25, 0.5\n", "commas between numbers: 1 (labels/0.txt line 1)"),
        ("1 0.5 0.5 0.25 0.5 0.93\n", "confidences after boxes ignored: 1 (labels/0.txt line 1)"),
        ("1 0.5 0.5 0.25 0.5\n" * 2, "lines that occur twice in a file used once: 1 (labels/0.txt line 2)"),
        ("\n1 0.5 0.5 0.25 0.5\r\n1 0.5 0.5 0 0\r\n", "boxes of no width or height left out: 1 (labels/0.txt line 3)"),
    ],
)
def test_repairs(root, content, repair):
    formats.text(root / "labels/0.txt", content)
    data = read_objects(root)
    assert f"repaired: {repair}" in data.findings.lines()
    assert boxes(data)["0.jpg"] == [("cog", (24.0, 12.0, 16.0, 24.0))]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("2 0.5 0.5 0.2 0.2\n", "class numbers outside of 0..1: 1 (labels/0.txt line 1: 2)"),
        ("-1 0.5 0.5 0.2 0.2\n", "class numbers that are not 0, 1, 2, ...: 1 (labels/0.txt line 1: -1)"),
        ("\n1 32 24 20 26\n", "coordinates above 2 (in pixels?), must be fractions 0..1"),
        ("1 1.5 0.5 0.2 0.2\n", "coordinates outside of the image, must be fractions 0..1"),
        ("cog 0.5 0.5 0.2 0.2\n", "lines that are not 'class x y width height'"),
        ("1 0.5 nan 0.2 0.2\n", "numbers that are NaN or infinite: 1 (labels/0.txt line 1)"),
        ("1 0.1 0.2 0.3 0.4 0.5 0.6 0.7\n", "neither a box (4) nor pairs of a polygon: 1 (labels/0.txt line 1: 7)"),
    ],
)
def test_mistakes_are_counted_and_located(root, content, problem):
    formats.text(root / "labels/0.txt", content)
    with pytest.raises(DataError) as error:
        read_objects(root)
    assert f"{root} (YOLO) has 1 problem: " in str(error.value)
    assert problem in str(error.value)


def test_all_mistakes_are_reported_at_once(root):
    formats.text(root / "labels/0.txt", "5 0.5 0.5 0.2 0.2\n6 0.5 0.5 0.2 0.2\n")
    formats.text(root / "labels/1.txt", "7 0.5 0.5 0.2 0.2\nx\n")
    (root / "images/2.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError) as error:
        read_objects(root)
    message = str(error.value)
    assert "has 5 problems" in message
    assert "outside of 0..1: 3 (labels/0.txt line 1: 5, labels/0.txt line 2: 6, labels/1.txt line 1: 7)" in message
    assert "images that cannot be read: 1 (images/2.jpg)" in message


def test_ids_that_count_from_one(root):
    for number in range(3):
        formats.text(root / f"labels/{number}.txt", "1 0.5 0.5 0.2 0.2\n2 0.3 0.3 0.2 0.2\n")
    with pytest.raises(DataError, match="seem to count from 1, must count from 0"):
        read_objects(root)


def test_boxes_as_corners(root):
    for number in range(3):
        formats.text(root / f"labels/{number}.txt", "1 0.5 0.4 0.9 0.9\n0 0.1 0.6 0.8 0.95\n")
    with pytest.raises(DataError, match="boxes that are corners .x1 y1 x2 y2., must be center and size"):
        read_objects(root)


def test_missing_and_extra_files(root):
    (root / "labels/0.txt").unlink()
    formats.text(root / "labels/stray.txt", "0 0.5 0.5 0.2 0.2\n")
    data = read_objects(root)
    assert "repaired: label files without an image ignored: 1 (labels/stray.txt)" in data.findings.lines()
    assert "1 of 3 images have no label file: no objects in them" in data.findings.notes
    assert boxes(data)["0.jpg"] == []


def test_images_of_the_same_name(root):
    formats.save(root / "images/0.png", formats.picture(0))
    with pytest.raises(DataError, match=r"share a label file: 1 \(images/0.png, images/0.jpg\)"):
        read_objects(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nc: 3\nnames: [bolt, cog]\n", "'nc' is 3, but 'names' has 2 class names"),
        ("names: [cog, cog]\n", "1 class names occur several times: 'cog'"),
        ("names: 5\n", "'names' must be a list of class names"),
        ("names: [a\n", "is not valid YAML"),
        ("train: nowhere/at/all\nnames: [bolt, cog]\n", "'train: nowhere/at/all' does not exist"),
    ],
)
def test_mistakes_of_data_yaml(root, content, message):
    formats.text(root / "data.yaml", content)
    with pytest.raises(DataError) as error:
        read_objects(root)
    assert message in str(error.value)
