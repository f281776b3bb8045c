"""labelme's shapes and their typical mistakes."""

import pytest
from helpers import data_formats as formats

from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.object_reader import read_objects


def write(root, number, **fields):
    formats.text(root / f"{number}.json", formats.labelme_json(number, **fields))


@pytest.fixture
def root(tmp_path):
    for number in range(3):
        formats.save(tmp_path / f"{number}.jpg", formats.picture(number))
        write(tmp_path, number)
    return tmp_path


def objects(data):
    return {
        image["file_name"]: [item for item in split.content["annotations"] if item["image_id"] == image["id"]]
        for split in (data.splits["train"], data.splits["val"])
        for image in split.content["images"]
    }


def test_rectangles(root):
    data = read_objects(root)
    assert data.describe().startswith(f"{root}: labelme format, 2 classes; train 2 images, ")
    found = {}
    for split in data.splits.values():
        found |= formats.boxes_of(split.content)
    assert found == formats.expected_boxes(range(3))


def test_parts_of_a_group_are_one_object(root):
    parts = [[[1, 1], [9, 1], [9, 9], [1, 9]], [[21, 1], [29, 1], [29, 9], [21, 9]]]
    polygons = [dict(label="cog", points=points, group_id=4, shape_type="polygon") for points in parts]
    circle = dict(label="cog", points=[[40, 20], [50, 20]], shape_type="circle")
    write(root, 0, shapes=[*polygons, circle, dict(label="cog", points=[[3, 3]], shape_type="point")])
    data = read_objects(root)
    joined, disk = objects(data)["0.jpg"]
    assert joined["bbox"] == [1, 1, 28, 8]
    assert joined["area"] == 128
    assert len(joined["segmentation"]) == 2
    assert disk["area"] == pytest.approx(314.2, rel=0.01)
    assert "repaired: points and lines ignored: 1 (0.json shape 4)" in data.findings.lines()


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (dict(points=[[1, 1], [5, 5]], shape_type="rectangle"), "shapes without a label: 1 (0.json shape 1)"),
        (dict(label="cog", points=[[1, 1], [5, 5]]), "polygons of fewer than three points"),
        (dict(label="cog", points=[[1, "x"]]), "shapes whose points are not pairs of numbers: 1 (0.json shape 1)"),
        (
            dict(label="cog", points=[[1, 1], [5, 5]], shape_type="mask"),
            "polygon, rectangle and circle: 1 (0.json shape 1: mask)",
        ),
    ],
)
def test_mistakes(root, shape, problem):
    write(root, 0, shapes=[shape])
    with pytest.raises(DataError) as error:
        read_objects(root)
    assert problem in str(error.value)


def test_files(root):
    write(root, 0, imageWidth=32)
    with pytest.raises(DataError, match=r"than their JSON file says: 1 \(0.json: 32 x 48, 0.jpg: 64 x 48\)"):
        read_objects(root)
    write(root, 0)
    (root / "0.jpg").rename(root / "9.jpg")
    with pytest.raises(DataError, match="JSON files without an image: 1 .0.json: 0.jpg"):
        read_objects(root)
    (root / "0.json").unlink()
    assert "1 images have no JSON file and are left out, such as 9.jpg" in read_objects(root).findings.notes
    formats.text(root / "classes.txt", "bolt\n")
    with pytest.raises(DataError, match="class 'cog' is not in classes.txt: 1 .1.json"):
        read_objects(root)
