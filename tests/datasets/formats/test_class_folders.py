"""Folders of images by class."""

import pytest
from helpers import data_formats as formats

from pe_dense.datasets.formats import class_folders
from pe_dense.datasets.formats.findings import DataError


def write(root, *names):
    for number, name in enumerate(names):
        formats.save(root / name, formats.picture(number))


def test_classes_are_the_names_of_folders(tmp_path):
    write(tmp_path, "steel_bolt/a.jpg", "steel_bolt/more/b.jpg", "n0123/c.png")
    formats.text(tmp_path / "classes.json", '{"n0123": "cog"}')
    found = {(path.name, label) for path, label in class_folders.read(tmp_path)}
    assert found == {("a.jpg", "steel bolt"), ("b.jpg", "steel bolt"), ("c.png", "cog")}


def test_images_of_the_last_split(tmp_path):
    write(tmp_path, "train/bolt/a.jpg", "train/cog/b.jpg", "val/bolt/c.jpg", "val/cog/d.jpg")
    assert [path.name for path, _ in class_folders.read(tmp_path)] == ["c.jpg", "d.jpg"]


def test_folders_without_classes(tmp_path):
    write(tmp_path, "a.jpg", "bolt/b.jpg")
    with pytest.raises(DataError, match="contains 1 folders of images and 1 images outside of them"):
        class_folders.read(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        class_folders.read(tmp_path / "absent")
