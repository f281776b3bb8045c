"""A detector's config, brought to data of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, class_names, image_name, read_annotations, some
from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError

# Where a split's annotations are looked for; the first pattern that something matches counts.
_PATTERNS = ("annotations/*{split}*.json", "*{split}*.json", "{split}*/*.json")
_DEPTH = 2  # of folders below the root, to look for images in


@dataclass
class _Split:
    """What a config needs to know of an annotation file.

    Attributes:
        path: of the file.
        images: folder that the images' names start from, relative to the data's root.
        classes: names by label.
        federated: whether it is in LVIS's format.
        run_lengths: whether masks of objects (not only of crowds) are run-length codes.
    """

    path: Path
    images: str
    classes: tuple[str, ...]
    federated: bool
    run_lengths: bool


def use_data(config: Config, folder: str | Path, splits: tuple[str, ...] = ("train", "val")) -> Config:
    """Have a detector's config use the data in a folder, with their classes.

    The annotations of a split ('train', 'val') are the one JSON file ``annotations/*<split>*.json`` of the folder; or,
    if there is none, ``*<split>*.json``, or ``<split>*/*.json``. They are in COCO's format or, if their images have
    ``neg_category_ids``, in LVIS's. Images may lie anywhere up to two folders deep.

    Heads and losses get the number of classes, a loss that counts them the training file, data sets and metrics
    files, names and format. All else, sampling and schedule among it, stays the config's. Tests use the val split.

    Args:
        config: of a detector; it is changed.
        folder: of the data.
        splits: which ones to look for: a test needs no 'train'.

    Returns:
        the config.

    Raises:
        ConfigError: if a file or its images are missing or not to be told from others, a file is not in the format or
            lacks masks that the config learns, or train and val have other classes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"the data folder {root} does not exist ({root.absolute()})")
    if "metric" not in (config.get("val_evaluator") or {}):
        raise ConfigError(f"{config.filename} is no detector's config: its val_evaluator has no 'metric'")
    metrics = config.val_evaluator["metric"]
    found = {split: _read_split(root, split, masks="segm" in metrics) for split in splits}
    classes = _common_classes(found)

    if not _set_below(config.model, "num_classes", len(classes)):
        raise ConfigError(f"{config.filename} is no detector's config: its model has no 'num_classes'")
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


def _read_split(root: Path, split: str, *, masks: bool) -> _Split:
    path = _annotation_file(root, split)
    try:
        content = read_annotations(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    images, annotations = content["images"], content["annotations"]
    if not images:
        raise ConfigError(f"{path} lists no image")
    federated = any("neg_category_ids" in image for image in images)
    try:
        name = image_name(images[0], LVIS_NAMES if federated else COCO_NAMES)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    bare = sum(not annotation.get("segmentation") for annotation in annotations)
    if masks and bare:
        raise ConfigError(
            f"{path}: {bare} of {len(annotations)} annotations have no 'segmentation', but this config learns masks"
        )
    return _Split(
        path=path,
        images=_image_folder(root, split, name, path),
        classes=class_names(content),
        federated=federated,
        run_lengths=any(isinstance(a.get("segmentation"), dict) and not a.get("iscrowd") for a in annotations),
    )


def _annotation_file(root: Path, split: str) -> Path:
    patterns = [pattern.format(split=split) for pattern in _PATTERNS]
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if len(files) > 1:
            names = ", ".join(str(file.relative_to(root)) for file in files)
            raise ConfigError(
                f"{root} has several annotation files for {split}: {names}; leave one that matches {pattern}"
            )
        if files:
            return files[0]
    raise ConfigError(f"{root} has no annotation file for {split}; looked for {', '.join(patterns)}")


def _image_folder(root: Path, split: str, name: str, path: Path) -> str:
    """The folder below which an image is there: the highest, and of several the one that is called after the split."""
    for level in _levels(root):
        holding = [folder for folder in level if (root / folder / name).is_file()]
        holding = [folder for folder in holding if split in folder] or holding
        if len(holding) > 1:
            raise ConfigError(
                f"{path} lists the image {name}, which is in several folders of {root}: {', '.join(holding)}"
            )
        if holding:
            return holding[0]
    raise ConfigError(
        f"{path} lists the image {name}, but there is neither {root / name} nor the like in folders up to {_DEPTH} deep"
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


def _common_classes(found: dict[str, _Split]) -> tuple[str, ...]:
    first, *others = found.values()
    for other in others:
        if other.classes == first.classes:
            continue
        here = [name for name in first.classes if name not in other.classes]
        there = [name for name in other.classes if name not in first.classes]
        if here or there:
            what = f"only in the first are {some(here)}, only in the second {some(there)}"
        else:
            what = f"the same ones in another order, {some(first.classes)} and {some(other.classes)}"
        raise ConfigError(
            f"{first.path} has {len(first.classes)} classes, {other.path} {len(other.classes)}, and they differ: {what}"
        )
    return first.classes


def _use_in_loader(loader: dict, root: Path, split: _Split) -> None:
    for dataset in inner_datasets(loader):
        dataset.pop("generator", None)
        dataset.update(
            type="pe_dense.LVISDataset" if split.federated else "pe_dense.CocoDataset",
            data_root=str(root),
            ann_file=str(split.path.relative_to(root)),
            data_prefix=dict(img=split.images),
            # mmdet's palette has 80 colours; without one it makes as many as are needed.
            metainfo=dict(classes=split.classes, palette=None),
        )
        for step in dataset.get("pipeline", ()):
            # Polygons are faster, but mmdet ignores objects with other masks where it is told to expect them.
            if split.run_lengths and step["type"] == "LoadAnnotations" and step.get("with_mask"):
                step["poly2mask"] = True


def _set_below(part, name: str, value) -> int:
    """Set a value wherever a model's config has it, but for the proposals' head, which knows objects only.

    Args:
        part: of the config, at first the whole model.
        name: of the value.
        value: the new one.

    Returns:
        in how many places.
    """
    if isinstance(part, list | tuple):
        return sum(_set_below(item, name, value) for item in part)
    if not isinstance(part, dict):
        return 0
    below = sum(_set_below(item, name, value) for key, item in part.items() if key != "rpn_head")
    if name in part:
        part[name] = value
    return below + (name in part)
