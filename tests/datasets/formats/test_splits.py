"""Splits into training and validation."""

import json

import pytest

from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.splits import choose_split, folder_splits, listed_splits, stratified_split

LABELS = {f"{i:03}.jpg": {"common"} | ({"rare"} if i % 20 == 0 else set()) for i in range(100)}


def test_each_class_keeps_its_share():
    val = stratified_split(LABELS)
    assert len(val) == 20
    assert sum("rare" in LABELS[name] for name in val) == 1
    assert stratified_split(dict(reversed(LABELS.items()))) == val  # the order of the files does not matter
    assert stratified_split(LABELS, seed=1) != val


def test_a_class_in_a_single_image_stays_in_training():
    labels = {f"{i}.jpg": {i} for i in range(5)} | {"empty.jpg": set()}
    assert stratified_split(labels) == {"empty.jpg"}
    assert len(stratified_split({"a": {0}, "b": {0}})) == 1
    with pytest.raises(DataError, match="1 image is too few"):
        stratified_split({"a": {0}})


def test_the_split_of_a_run_is_used_again(tmp_path):
    path, findings = tmp_path / "run/split.json", FolderFindings()
    first = choose_split(LABELS, [path], findings, write_to=path)
    assert json.loads(path.read_text())["val"] == first["val"]
    assert f"20 of 100 images chosen (seed 0, stratified by class, written to {path})" in findings.notes[0]
    more = {"000_new.jpg": {"rare"}, **LABELS}
    again = choose_split(more, [path], findings)
    assert again["val"] == first["val"]
    assert again["train"][0] == "000_new.jpg"
    assert "1 images that" in findings.notes[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "is not a split"), ('{"train": [], "val": ["other.jpg"]}', "lists other images than the data")],
)
def test_files_of_other_data(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        choose_split(LABELS, [path], FolderFindings())


def test_images_outside_of_the_folders_of_splits():
    findings = FolderFindings()
    names = ["a/train/1.jpg", "valid/2.jpg", "3.jpg"]
    assert folder_splits(names, findings) == {"a/train/1.jpg": "train", "valid/2.jpg": "val"}
    assert findings.notes == ["1 of 3 images are in no folder of a split and are left out, such as 3.jpg"]
    assert folder_splits(["train_1/1.jpg"], findings) == {"train_1/1.jpg": "all"}
    assert folder_splits(["train_1/1.jpg"], findings, in_words=True) == {"train_1/1.jpg": "train"}
    assert len(findings.notes) == 1


def test_lists_of_images(tmp_path):
    (tmp_path / "train.txt").write_text("a/1\n1\n2 -1\n./b/3.jpg 1\nmy photo.jpg\n")
    findings = FolderFindings()
    images = ["a/1.jpg", "b/1.jpg", "2.jpg", "b/3.jpg", "my photo.jpg"]
    listed = listed_splits(tmp_path, dict(train=tmp_path / "train.txt"), images, findings, "a map")
    assert listed == {"a/1.jpg": "train", "b/3.jpg": "train", "my photo.jpg": "train"}
    assert findings.errors == {"listed names of several images": ["train.txt line 2: 1 (a/1.jpg, b/1.jpg)"]}
    with pytest.raises(DataError, match="none of the images is listed in"):
        listed_splits(tmp_path, dict(train=tmp_path / "train.txt"), ["4.jpg"], FolderFindings(), "a map")
