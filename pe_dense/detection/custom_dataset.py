"""Adapt a detector's config to a custom data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, class_names, image_name, read_annotations, some
from pe_dense.engine.preflight import inner_datasets
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


@dataclass
class _Split:
    """Properties of an annotation file that a config needs.

    Attributes:
        path: path of the annotation file.
        images: folder that image file names are relative to; relative to the data folder or absolute.
        classes: class names by label.
        federated: whether the file is in LVIS format.
    """

    path: Path
    images: str
    classes: tuple[str, ...]
    federated: bool


def use_data(
    config: Config,
    folder: str | Path | None,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    train_ann: str | Path | None = None,
    val_ann: str | Path | None = None,
    images: str | Path | None = None,
) -> Config:
    """Adapt a detector's config to the custom data set in a folder, including its classes.

    The annotation files of the splits 'train' and 'val' are found by their names, see
    :func:`pe_dense.detection.custom_dataset.find_annotation_file`; without a val file a test file is used. They are in
    COCO's format or, if their images have ``neg_category_ids``, in LVIS's. Images may be up to two folders deep.

    The number of classes is set in heads and losses, the training file in losses that count class frequencies, and
    files, class names and format in data sets and metrics. Everything else, including sampling and schedule, is not
    changed. Tests use the val split.

    Args:
        config: config of a detector; modified in place.
        folder: data folder.
        splits: splits to find; a test does not need 'train'.
        train_ann, val_ann: annotation files, relative to the working directory or to the folder; None to find them.
        images: folder of all images, relative to the working directory or to the folder; None to find it.

    Returns:
        the config.

    Raises:
        AnnotationError: if an annotation file is not valid, or lacks masks that the config trains on, see
            :func:`pe_dense.datasets.annotations.read_annotations`.
        ConfigError: if a file or its images are missing or ambiguous, or train and val are the same file without being
            requested explicitly, or have different classes.
    """
    if not folder:
        raise ConfigError(
            "--train-ann, --val-ann and --images select parts of custom data: add its folder with --data FOLDER"
        )
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"the data folder {root} does not exist ({root.absolute()})")
    if "metric" not in (config.get("val_evaluator") or {}):
        raise ConfigError(f"{config.filename} is not a detector's config: its val_evaluator has no 'metric'")
    _refuse_maps(config, splits)
    metrics = config.val_evaluator["metric"]
    files = _choose_files(root, splits, dict(train=train_ann, val=val_ann))
    found = {
        split: _read_split(root, path, source, images, masks="segm" in metrics)
        for split, (source, path) in files.items()
    }
    classes = _common_classes(found)

    if not _set_classes(config.model, len(classes)):
        raise ConfigError(f"{config.filename} is not a detector's config: its model has no 'num_classes'")
    if "train" in found:
        _set_below(config.model, "ann_file", str(found["train"].path))
        _use_in_loader(config.train_dataloader, root, found["train"])
    if "val" in found:
        metric = "pe_dense.LVISMetric" if found["val"].federated else "pe_dense.CocoMetric"
        for name in ("val", "test"):
            _use_in_loader(config[f"{name}_dataloader"], root, found["val"])
            config[f"{name}_evaluator"] = dict(type=metric, ann_file=str(found["val"].path), metric=metrics)
    config.data_root = str(root)
    config.pop("data_source", None)
    return config


def _refuse_maps(config: Config, splits: tuple[str, ...]) -> None:
    """Refuse methods that train on maps of all pixels, which COCO's format does not have.

    Raises:
        ConfigError: for panoptic models and models with a semantic branch.
    """
    text = str([config.get(f"{split}_dataloader") for split in splits if split == "train"])
    if "LoadPanopticAnnotations" in text or "'with_seg': True" in text:
        raise ConfigError(
            f"{config.filename} trains on segmentation maps in addition to objects, but --data is for annotations in "
            "COCO's format for objects: choose a method without a semantic or panoptic branch"
        )


def _set_classes(model, count: int) -> int:
    """Set the number of classes in heads and losses, and the class weights that depend on it.

    Returns:
        number of heads and losses that were changed.
    """
    changed = _set_below(model, "num_classes", count)
    for part in _mask_heads(model):
        weights = (part.get("loss_cls") or {}).get("class_weight")
        if isinstance(weights, list | tuple) and len(weights) == part["num_things_classes"] + 1:
            part["loss_cls"]["class_weight"] = [weights[0]] * count + [weights[-1]]  # the last one is of the background
        part["num_things_classes"] = count
        changed += 1
    return changed


def _mask_heads(part):
    """Iterate over the heads of mask transformers, which have things and stuff instead of classes."""
    if isinstance(part, dict):
        if "num_things_classes" in part:
            yield part
        for item in part.values():
            yield from _mask_heads(item)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _mask_heads(item)


def _choose_files(
    root: Path, splits: tuple[str, ...], chosen: dict[str, str | Path | None]
) -> dict[str, tuple[str, Path]]:
    """Return the annotation file of each split, with the split that its name refers to."""
    files = {}
    for split in splits:
        if chosen[split]:
            files[split] = (split, chosen_file(root, chosen[split], f"--{split}-ann"))
            continue
        source, path = split, find_annotation_file(root, split)
        if path is None and split == "val" and (path := find_annotation_file(root, "test")):
            source = "test"
            print_log(f"{root} has no annotation file for val: validating on {path}", "current")
        if path is None:
            patterns = (f"annotations/*{split}*.json", f"*{split}*.json", f"{split}*/*.json")
            raise ConfigError(
                f"{root} has no annotation file for {split}; looked for {', '.join(patterns)}. "
                f"Choose one with --{split}-ann FILE"
            )
        files[split] = (source, path)
    if {"train", "val"} <= set(files) and not (chosen["train"] and chosen["val"]):
        train, val = files["train"][1], files["val"][1]
        if train.samefile(val):
            raise ConfigError(
                f"train and val would both be {train}; name other files with --train-ann and --val-ann "
                "(or the same one with both, to validate on the training data)"
            )
    return files


def _read_split(root: Path, path: Path, split: str, images: str | Path | None, *, masks: bool) -> _Split:
    content = read_annotations(path, masks=masks, quiet=True)
    entries = content["images"]
    if not entries:
        raise ConfigError(f"{path} lists no image")
    federated = any("neg_category_ids" in image for image in entries)
    try:
        name = image_name(entries[0], LVIS_NAMES if federated else COCO_NAMES)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return _Split(
        path=path,
        images=chosen_folder(root, images, name, path) if images else find_image_folder(root, split, name, path),
        classes=class_names(content),
        federated=federated,
    )


def _common_classes(found: dict[str, _Split]) -> tuple[str, ...]:
    first, *others = found.values()
    for other in others:
        if other.classes == first.classes:
            continue
        here = [name for name in first.classes if name not in other.classes]
        there = [name for name in other.classes if name not in first.classes]
        if here or there:
            what = f"only in the first: {some(here)}; only in the second: {some(there)}"
        else:
            what = f"their order differs: {some(first.classes)} and {some(other.classes)}"
        raise ConfigError(
            f"{first.path} has {len(first.classes)} classes, {other.path} {len(other.classes)}, and they differ: {what}"
        )
    return first.classes


def _use_in_loader(loader: dict, root: Path, split: _Split) -> None:
    for dataset in inner_datasets(loader):
        dataset.pop("generator", None)
        dataset.pop("ann_file_alternatives", None)
        dataset.update(
            type="pe_dense.LVISDataset" if split.federated else "pe_dense.CocoDataset",
            data_root=str(root),
            ann_file=relative(split.path, root),
            data_prefix=dict(img=split.images),
            # mmdet's palette has 80 colors; without a palette it generates as many as are needed.
            metainfo=dict(classes=split.classes, palette=None),
        )


def _set_below(part, name: str, value) -> int:
    """Set a value wherever a model's config has it, except in the RPN head, which is class-agnostic.

    Args:
        part: config to search; the complete model in the outermost call.
        name: key of the value.
        value: new value.

    Returns:
        number of changed values.
    """
    if isinstance(part, list | tuple):
        return sum(_set_below(item, name, value) for item in part)
    if not isinstance(part, dict):
        return 0
    below = sum(_set_below(item, name, value) for key, item in part.items() if key != "rpn_head")
    if name in part:
        part[name] = value
    return below + (name in part)
