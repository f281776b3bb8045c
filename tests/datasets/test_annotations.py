"""Invalid annotation files, and classes that differ from those of a file."""

import json
import os

import pytest
from helpers.annotated_folder import content

from pe_dense.datasets import annotation_check, annotations
from pe_dense.datasets.annotations import (
    COCO_NAMES,
    LVIS_NAMES,
    AnnotationError,
    check_classes,
    class_names,
    image_name,
    read_annotations,
)


def read(tmp_path, annotations):
    (tmp_path / "ann.json").write_text(json.dumps(annotations))
    return read_annotations(tmp_path / "ann.json")


def test_good_files_come_back_whole(tmp_path):
    for federated in (False, True):
        annotations = content(("b", "a"), ["0.png"], federated=federated)
        assert read(tmp_path, annotations) == annotations
        assert class_names(annotations) == ("b", "a")


def changed(**parts):
    return dict(content(("a", "b"), ["0.png", "1.png"]), **parts)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([1], r"ann\.json is not a valid annotation file: it contains a list"),
        (
            {"shapes": []},
            "; ".join(f"'{key}' is missing or not a list" for key in ("images", "annotations", "categories")),
        ),
        (changed(categories=[]), "'categories' is empty"),
        (changed(categories=[dict(id=1, name="a"), dict(id=2)]), "'name' is missing in 1 of 2 categories"),
        (changed(images=[dict(id=0, width=1, height=1)]), "1 of 1 images have neither 'file_name' nor 'coco_url'"),
        (
            changed(annotations=[dict(id=1, image_id=0, category_id=1, area=1)]),
            r"'bbox' is missing in 1 of 1 annotations \(id 1\)",
        ),
        (
            changed(categories=[dict(id=1, name="a"), dict(id=2, name="a")]),
            r"2 categories share 1 names \('a' occurs more than once\)",
        ),
        (changed(categories=[dict(id=1, name="a")]), "2 annotations have a 'category_id' that none of the categories"),
        (
            changed(images=content(("a",), ["0.png"])["images"]),
            "2 annotations have a 'image_id' that none of the images",
        ),
        (
            changed(annotations=2 * content(("a",), ["0.png"])["annotations"]),
            r"2 annotations share 1 ids \(1 occurs more than once\)",
        ),
    ],
)
def test_bad_files_are_reported(tmp_path, annotations, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, annotations)


def test_no_json(tmp_path):
    (tmp_path / "a.json").write_text("<xml>")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON: Expecting value"):
        read_annotations(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(AnnotationError, match=r"a\.json is not a valid annotation file: it is nested too deeply"):
        read_annotations(tmp_path / "a.json")


def test_names_of_images():
    both = dict(id=3, file_name="1.jpg", coco_url="http://images.cocodataset.org/train2017/1.jpg")
    assert image_name(both, COCO_NAMES) == "1.jpg"
    assert image_name(both, LVIS_NAMES) == "train2017/1.jpg"
    assert image_name(dict(both, coco_url=""), LVIS_NAMES) == "1.jpg"
    assert image_name(dict(coco_url="train/1.png"), LVIS_NAMES) == "train/1.png"
    with pytest.raises(ValueError, match="image 3 has no file_name$"):
        image_name(dict(id=3, coco_url="1.jpg"), COCO_NAMES)


def test_classes_are_the_files_or_some_in_its_order():
    check_classes(["a", "b"], ["a", "b"], "f.json")
    check_classes(["a", "c"], ["a", "b", "c"], "f.json")
    message = r"1 of the data set's 2 classes are not in f\.json: 'd'; of the file's 2 categories, 1 are not"
    with pytest.raises(ValueError, match=message):
        check_classes(["a", "d"], ["a", "b"], "f.json")
    with pytest.raises(
        ValueError, match=r"order of the data set's classes differs from f\.json: 'b', 'a'; in the file 'a', 'b'"
    ):
        check_classes(["b", "a"], ["a", "b"], "f.json")


@pytest.fixture
def checks(monkeypatch):
    """The values of `masks` of all checks that are run."""
    calls = []

    def check_content(content, *, masks):
        calls.append(masks)
        return annotation_check.check_content(content, masks=masks)

    monkeypatch.setattr(annotations, "check_content", check_content)
    return calls


def test_a_file_is_checked_once(tmp_path, checks):
    path, good = tmp_path / "ann.json", changed()

    def write(content, seconds):
        path.write_text(json.dumps(content))
        os.utime(path, (seconds, seconds))

    write(good, 1000)
    assert read_annotations(path, masks=None) == good
    assert read_annotations(path, masks=True) == read_annotations(path, masks=True) == good  # stricter: checked again
    (tmp_path / "link.json").symlink_to(path)
    assert read_annotations(tmp_path / "link.json") == good
    assert not any("segmentation" in entry for entry in read_annotations(path, masks=False)["annotations"])
    assert checks == [None, True]
    write(changed(categories=[dict(id=1, name="a")]), 1000)  # of another size
    for _ in range(2):
        with pytest.raises(ValueError, match="'category_id' that none of the categories"):
            read_annotations(path)
    write(good, 2000)
    good["annotations"][0]["iscrowd"] = "0"
    read_annotations(path)
    write(good, 3000)
    for _ in range(2):  # repairs are needed each time
        assert read_annotations(path, quiet=True)["annotations"][0]["iscrowd"] == 0
    assert len(checks) == 7
    path.write_text(json.dumps(changed()))  # just now: another change may leave time and size as they are
    for _ in range(2):
        read_annotations(path)
    assert len(checks) == 9
