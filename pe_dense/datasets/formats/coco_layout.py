"""Find the annotation files and image folders of data sets in COCO's format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log

from pe_dense.utils.errors import ConfigError

SPLITS = ("train", "val", "test")
# Annotation files in COCO's folder that contain no instances. `image_info` files list images without annotations.
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
        [(split_rank(file.name, split), file) for file in _json_files(root / "annotations")],
        [(split_rank(file.name, split), file) for file in _json_files(root)],
        [(split_rank(folder.name, split), file) for folder in inner for file in _json_files(folder)],
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


def split_rank(name: str, split: str) -> int | None:
    """Return how well a name matches a split: 0 is the best match, None is no match."""
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
    """Return the path of a file given by an option, relative to the working directory or to the data folder.

    Raises:
        ConfigError: if there is no such file.
    """
    for path in (Path(name), root / name):
        if path.is_file():
            return path
    raise ConfigError(f"{option} {name} is not a file, neither here ({Path(name).absolute()}) nor in {root}")


def chosen_folder(root: Path, folder: str | Path, image: str, annotations: Path) -> str:
    """Return the image folder given by ``--images``, relative to the data folder if inside it, else absolute.

    Args:
        root: data folder.
        folder: relative to the working directory or to the data folder.
        image: name of an image that must be in it.
        annotations: file that lists the image, for the error message.

    Raises:
        ConfigError: if the image is not found.
    """
    places = [path for path in (Path(folder), root / folder) if path.is_dir()]
    if not places:
        raise ConfigError(f"--images {folder} is not a folder, neither here ({Path(folder).absolute()}) nor in {root}")
    for path in places:
        if (path / image).is_file():
            return relative(path, root)
    raise ConfigError(f"{annotations} lists the image {image}, but {places[0] / image} does not exist")


def relative(path: Path, root: Path) -> str:
    """Return a path relative to a folder if it is inside the folder, else the absolute path."""
    inside = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return str(inside[0].relative_to(inside[1])) if inside[0].is_relative_to(inside[1]) else str(inside[0])


def find_image_folder(root: Path, split: str, name: str, path: Path) -> str:
    """Find the folder that an image's file name is relative to, relative to the data folder.

    The topmost folder is used; among several on one level, the one named after the split.

    Args:
        root: data folder.
        split: 'train', 'val' or 'test'.
        name: file name of the image, as in the annotation file.
        path: annotation file, for the error message.

    Raises:
        ConfigError: if the image is in no folder up to two levels deep, or in several.
    """
    for level in _levels(root):
        folders = [folder for folder in level if (root / folder / name).is_file()]
        for name_of_split in (split, "val") if split == "test" else (split,):  # a test file may be used for val
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
    """Iterate over the folder levels below the root, from the root ('') down, as paths relative to it."""
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


def candidates(root: Path) -> list[Path]:
    """List the JSON files of a data folder that begin like annotation files, whatever their names."""
    inner = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    files = [file for folder in (root, *inner) for file in _json_files(folder)]
    return [file for file in files if _begins_like_coco(file)]


def _begins_like_coco(path: Path) -> bool:
    """Return whether a file has one of the keys of annotation files, in its first or last part."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        text = head + file.read()
    keys = (b'"images"', b'"annotations"', b'"categories"')
    return any(key in text for key in keys) and b'"segments_info"' not in text


def choose_files(
    root: Path, splits: tuple[str, ...], chosen: dict[str, str | Path | None]
) -> dict[str, tuple[str, Path]]:
    """Choose the annotation file of each split.

    Args:
        root: data folder.
        splits: 'train', 'val' and 'test', of which 'test' is optional: val is used without such a file.
        chosen: file of each split given by an option, or None.

    Returns:
        for each split, the split that the file is named after, and the file. If there is only one file, or one for
        training without any other, its key is 'all'.

    Raises:
        ConfigError: if several files match equally well, none does, or train and val are the same file.
    """
    files = {}
    for split in splits:
        option = "val" if split == "test" else split
        if chosen.get(option):
            files[split] = (option, chosen_file(root, chosen[option], f"--{option}-ann"))
            continue
        source, path = split, find_annotation_file(root, split)
        if path is None and split != "train":
            source = "test" if split == "val" else "val"
            path = find_annotation_file(root, source)
            if path and split == "val":
                print_log(f"{root} has no annotation file for val: validating on {path}", "current")
        if path is not None:
            files[split] = (source, path)
    if "test" in files or ({"train", "val"} & set(splits)) <= set(files) != set():
        _refuse_equal(files, chosen)
        return files
    if "train" not in files and (only := find_annotation_file(root, "train")):
        files["train"] = ("train", only)
    if "train" in files:
        return {"all": files["train"]}
    found = [file for file in candidates(root) if file not in [path for _, path in files.values()]]
    if len(found) == 1 and not files:
        return {"all": ("", found[0])}
    missing = next(split for split in ("train", "val") if split not in files)
    patterns = (f"annotations/*{missing}*.json", f"*{missing}*.json", f"{missing}*/*.json")
    names = ", ".join(str(file.relative_to(root)) for file in found)
    raise ConfigError(
        f"{root} has no annotation file for {missing}; looked for {', '.join(patterns)}"
        + (f", found {names}" if names else "")
        + f". Choose one with --{missing}-ann FILE"
    )


def _refuse_equal(files: dict[str, tuple[str, Path]], chosen: dict[str, str | Path | None]) -> None:
    if {"train", "val"} <= set(files) and not (chosen.get("train") and chosen.get("val")):
        train, val = files["train"][1], files["val"][1]
        if train.samefile(val):
            raise ConfigError(
                f"train and val would both be {train}; name other files with --train-ann and --val-ann "
                "(or the same one with both, to validate on the training data)"
            )
