"""Find the annotation file and the image folder of each split in a data folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pe_dense.utils.errors import ConfigError

SPLITS = ("train", "val", "test")
# Annotation files of COCO's own folder that have no instances. `image_info` files list images without annotations.
_OTHER_TASKS = ("captions", "keypoints", "panoptic", "stuff", "densepose", "image_info")
_DEPTH = 2  # levels of folders below the root that are searched for images


def find_annotation_file(root: Path, split: str) -> Path | None:
    """Find the annotation file of a split, or None if no name matches.

    Files are searched in ``annotations/``, then in the root, then in folders named after the split; the first of these
    places with a match is used. A name matches a split if one of its words is the split (``instances_val2017.json``),
    starts with it (``validation.json``) or contains it (``minival.json``), in this order of preference. A name with
    both ``train`` and ``val`` (``voc_trainval.json``) is a training file. Files of COCO's other tasks (captions,
    keypoints, panoptic segmentation, lists of images) are ignored.

    Args:
        root: data folder.
        split: 'train', 'val' or 'test'.

    Raises:
        ConfigError: if several files match equally well.
    """
    inner = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    places = [
        [(_rank(file.name, split), file) for file in _json_files(root / "annotations")],
        [(_rank(file.name, split), file) for file in _json_files(root)],
        [(_rank(folder.name, split), file) for folder in inner for file in _json_files(folder)],
    ]
    for place in places:
        matches = [(rank, file) for rank, file in place if rank is not None]
        if not matches:
            continue
        best = min(rank for rank, _ in matches)
        files = [file for rank, file in matches if rank == best]
        if len(files) > 1:
            names = ", ".join(str(file.relative_to(root)) for file in files)
            raise ConfigError(
                f"{root} has several annotation files for {split}: {names}; "
                f"choose one with --{'train' if split == 'train' else 'val'}-ann FILE"
            )
        return files[0]
    return None


def _json_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [file for file in files if not any(task in file.name.lower() for task in _OTHER_TASKS)]


def _rank(name: str, split: str) -> int | None:
    """How well a name matches a split: 0 is best, None is not at all."""
    words = re.findall("[a-z]+", name.lower())
    named = {other for other in SPLITS if any(other in word for word in words)}
    if {"train", "val"} <= named:
        return 3 if split == "train" else None
    if split in words:
        return 0
    if split not in named:
        return None
    return 1 if any(word.startswith(split) for word in words) else 2


def chosen_file(root: Path, name: str | Path, option: str) -> Path:
    """The path of a file that an option names, relative to the working directory or to the data folder.

    Raises:
        ConfigError: if there is no such file.
    """
    for path in (Path(name), root / name):
        if path.is_file():
            return path
    raise ConfigError(f"{option} {name} is not a file, neither here ({Path(name).absolute()}) nor in {root}")


def chosen_folder(root: Path, folder: str | Path, image: str, annotations: Path) -> str:
    """The image folder that ``--images`` names, relative to the data folder if it lies there, else absolute.

    Args:
        root: data folder.
        folder: relative to the working directory or to the data folder.
        image: name of an image that must be in it.
        annotations: file that lists the image, for the error message.

    Raises:
        ConfigError: if the image is not there.
    """
    places = [path for path in (Path(folder), root / folder) if path.is_dir()]
    if not places:
        raise ConfigError(f"--images {folder} is not a folder, neither here ({Path(folder).absolute()}) nor in {root}")
    for path in places:
        if (path / image).is_file():
            return relative(path, root)
    raise ConfigError(f"{annotations} lists the image {image}, but {places[0] / image} does not exist")


def relative(path: Path, root: Path) -> str:
    """A path relative to a folder if it lies there, else the absolute path."""
    inside = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return str(inside[0].relative_to(inside[1])) if inside[0].is_relative_to(inside[1]) else str(inside[0])


def find_image_folder(root: Path, split: str, name: str, path: Path) -> str:
    """Find the folder from which an image's name leads to a file, relative to the data folder.

    The highest folder is used, and of several on one level the one named after the split.

    Args:
        root: data folder.
        split: 'train', 'val' or 'test'.
        name: of the image, as in the annotation file.
        path: annotation file, for the error message.

    Raises:
        ConfigError: if the image is in no folder up to two levels deep, or in several.
    """
    for level in _levels(root):
        folders = [folder for folder in level if (root / folder / name).is_file()]
        for name_of_split in (split, "val") if split == "test" else (split,):  # a test file may stand in for val
            folders = [folder for folder in folders if name_of_split in folder] or folders
        if len(folders) > 1:
            raise ConfigError(
                f"{path} lists the image {name}, which is in several folders of {root}: {', '.join(folders)}; "
                "choose one with --images FOLDER"
            )
        if folders:
            return "" if folders[0] == "." else folders[0]
    raise ConfigError(
        f"{path} lists the image {name}, but neither {root / name} nor such a file in folders up to {_DEPTH} levels "
        "deep exists. Images elsewhere: --images FOLDER"
    )


def _levels(root: Path) -> Iterator[list[str]]:
    """The root (as ''), the folders in it, and the folders in those, relative to it."""
    level = [""]
    yield level
    for _ in range(_DEPTH):
        level = [
            os.path.join(folder, entry.name)
            for folder in level
            for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
        yield level
