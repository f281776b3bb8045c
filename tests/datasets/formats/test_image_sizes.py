"""Sizes of images are read once."""

import os
import shutil

import pytest
from helpers import data_formats as formats
from PIL import Image

from pe_dense.datasets.formats import image_sizes
from pe_dense.datasets.formats.object_reader import read_objects

CACHE = ".image_sizes.cache"


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Cache files of any number of images; lists the images that are opened."""
    found, image_size = [], image_sizes.image_size
    monkeypatch.setattr(image_sizes, "image_size", lambda path: found.append(path.name) or image_size(path))
    monkeypatch.setattr(image_sizes, "MIN_IMAGES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return found


def age(root, seconds=10):
    for path in root.rglob("*.jpg"):
        status = path.stat()
        os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))
    return root


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_the_second_start_opens_no_image(tmp_path, opened, name):
    root = age(getattr(formats, f"write_{name}")(tmp_path / "data"))
    first = read_objects(root)
    assert sorted(opened) == [f"{number}.jpg" for number in range(6)]
    opened.clear()
    again = read_objects(root)
    assert opened == []
    assert {split: part.content for split, part in again.splits.items()} == {
        split: part.content for split, part in first.splits.items()
    }
    changed = next(root.rglob("3.jpg"))
    Image.new("RGB", (20, 10)).save(changed)
    if name == "yolo":
        images = read_objects(root).splits["train"].content["images"]
        assert (images[3]["width"], images[3]["height"]) == (20, 10)
        assert opened == ["3.jpg"]


def test_read_only_folders_use_the_users_cache(tmp_path, opened, monkeypatch):
    root = age(formats.write_yolo(tmp_path / "data"))

    def write_text(path, text):
        if path.parent == root:
            raise PermissionError("read-only")
        original(path, text)

    original = image_sizes.write_text
    monkeypatch.setattr(image_sizes, "write_text", write_text)
    for _ in range(2):
        read_objects(root)
    assert len(opened) == 6
    assert not (root / CACHE).exists()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0, "images": {}}', '{"version": 1, "images": {"a": 1}}'])
def test_damaged_files_are_replaced(tmp_path, opened, content):
    root = age(formats.write_yolo(tmp_path / "data"))
    (root / CACHE).write_text(content)
    for _ in range(2):
        assert read_objects(root).splits["val"].num_images == 2
    assert len(opened) == 6


def test_few_images_and_new_ones_are_not_stored(tmp_path, opened, monkeypatch):
    root = formats.write_yolo(tmp_path / "data")
    monkeypatch.setattr(image_sizes, "_SETTLED", 60)  # may change again without another time
    read_objects(root)
    assert not (root / CACHE).exists()
    monkeypatch.setattr(image_sizes, "MIN_IMAGES", 7)
    shutil.copytree(age(root, 100), tmp_path / "copy")
    read_objects(root)
    assert not (root / CACHE).exists()
