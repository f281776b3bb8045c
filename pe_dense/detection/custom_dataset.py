"""Adapt a detector's config to a folder of custom data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, class_names, image_name, read_annotations, some
from pe_dense.detection.find_data import chosen_file, chosen_folder, find_annotation_file, find_image_folder, relative
from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError


@dataclass
class _Split:
    """What a config needs from an annotation file.

    Attributes:
        path: of the file.
        images: folder that the images' names start from, relative to the data's root or absolute.
        classes: names by label.
        federated: whether it is in LVIS's format.
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
    """Let a detector's config use the data in a folder, with their classes.

    The annotation files of the splits 'train' and 'val' are found by their names, see
    :func:`pe_dense.detection.find_data.find_annotation_file`; without a val file a test file is used. They are in
    COCO's format or, if their images have ``neg_category_ids``, in LVIS's. Images may be up to two folders deep.

    Heads and losses get the number of classes, a loss that counts classes gets the training file, data sets and metrics
    get files, names and format. All else, including sampling and schedule, stays the config's. Tests use the val split.

    Args:
        config: of a detector; it is changed.
        folder: of the data.
        splits: which ones to look for: a test needs no 'train'.
        train_ann, val_ann: annotation files, relative to the working directory or to the folder; None to find them.
        images: folder of all images, relative to the working directory or to the folder; None to find it.

    Returns:
        the config.

    Raises:
        AnnotationError: if an annotation file is not valid, or has no masks though the config learns them, see
            :func:`pe_dense.datasets.annotations.read_annotations`.
        ConfigError: if a file or its images are missing or ambiguous, or train and val are the same file without being
            asked for, or have other classes.
    """
    if not folder:
        raise ConfigError("--train-ann, --val-ann and --images choose among custom data: add its folder, --data FOLDER")
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"the data folder {root} does not exist ({root.absolute()})")
    if "metric" not in (config.get("val_evaluator") or {}):
        raise ConfigError(f"{config.filename} is not a detector's config: its val_evaluator has no 'metric'")
    metrics = config.val_evaluator["metric"]
    files = _choose_files(root, splits, dict(train=train_ann, val=val_ann))
    found = {
        split: _read_split(root, path, source, images, masks="segm" in metrics)
        for split, (source, path) in files.items()
    }
    classes = _common_classes(found)

    if not _set_below(config.model, "num_classes", len(classes)):
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


def _choose_files(
    root: Path, splits: tuple[str, ...], chosen: dict[str, str | Path | None]
) -> dict[str, tuple[str, Path]]:
    """The annotation file of each split, with the split that its name is about."""
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
