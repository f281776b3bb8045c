"""Adapt a detector's config to a custom data set."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.formats.coco_layout import relative
from pe_dense.datasets.formats.object_reader import data_root, read_objects
from pe_dense.datasets.formats.objects import ObjectData, ObjectSplit, write_content
from pe_dense.datasets.formats.splits import SPLIT_FILE
from pe_dense.engine.class_counts import drop_masks, has_optional_masks, set_num_classes
from pe_dense.engine.config_parts import set_below
from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError


def use_data(
    config: Config,
    folder: str | Path,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    train_ann: str | Path | None = None,
    val_ann: str | Path | None = None,
    images: str | Path | None = None,
    work_dir: str | Path | None = None,
    records: tuple[Path, ...] = (),
) -> Config:
    """Adapt a detector's config to the custom data set in a folder, including its classes.

    All formats of :mod:`pe_dense.datasets.formats` are read. COCO's and LVIS's files are used as they are; other
    annotations, and those of a new split into training and validation, are written to ``<work dir>/data`` in COCO's
    format.

    If no object has a mask, a detector with a mask head trains boxes only. The number of classes is set in heads and
    losses, the training file in losses that count class frequencies, and
    files, class names and format in data sets and metrics. Everything else, including sampling and schedule, is not
    changed.

    Args:
        config: config of a detector; modified in place.
        folder: data folder.
        splits: splits to find: 'train' and 'val' for training, 'test' for a test, which takes the images of 'val' if
            the data have none of 'test'.
        train_ann, val_ann: annotation files in COCO's format, relative to the working directory or to the folder; None
            to find them.
        images: folder of all images, relative to the working directory or to the folder; None to find it.
        work_dir: the run's folder; None to write nothing, for predictions, which only need the classes.
        records: files of an earlier split, see :func:`~pe_dense.datasets.formats.splits.choose_split`.

    Returns:
        the config.

    Raises:
        AnnotationError: if an annotation file is not valid, or lacks some of the masks that the config trains on, see
            :func:`pe_dense.datasets.annotations.read_annotations`.
        ConfigError: if a file or its images are missing or ambiguous, or train and val are the same file without being
            requested explicitly, or have different classes.
    """
    data_root(folder)
    if "metric" not in (config.get("val_evaluator") or {}):
        raise ConfigError(f"{config.filename} is not a detector's config: its val_evaluator has no 'metric'")
    _refuse_maps(config, splits)
    trains = "train" in splits
    masks = "segm" in config.val_evaluator["metric"] or (trains and has_optional_masks(config))
    masks &= trains or work_dir is not None  # predictions only need the classes
    converted = None if work_dir is None else Path(work_dir) / "data"
    data = read_objects(
        folder,
        splits,
        chosen=dict(train=train_ann, val=val_ann),
        images=images,
        masks=masks,
        accept_boxes=has_optional_masks(config),
        records=records,
        write_to=converted and converted / SPLIT_FILE,
    )
    if masks and data.has_boxes_only:
        drop_masks(config)
        print_log(f"{data.root}: no masks in the data: {'training' if trains else 'testing'} boxes only", "current")
    data.findings.log(data.root)
    print_log(data.describe(), "current")
    if not set_num_classes(config.model, len(data.classes)):
        raise ConfigError(f"{config.filename} is not a detector's config: its model has no 'num_classes'")
    for split, found in data.splits.items():
        _use_split(config, data, split, found, converted)
    config.data_root = str(data.root)
    config.pop("data_source", None)
    return config


def _use_split(config: Config, data: ObjectData, split: str, found: ObjectSplit, folder: Path | None) -> None:
    """Set the files of a split in loaders, metrics and losses."""
    path = found.path or (write_content(folder, split, found.content) if folder else Path(f"{split}.json"))
    if found.path is None:
        _apply_orientation(config)
    if split == "train":
        set_below(config.model, "ann_file", str(path))
        _use_in_loader(config.train_dataloader, data, found, path)
        return
    metrics = config.val_evaluator["metric"]
    metric = "pe_dense.LVISMetric" if found.federated else "pe_dense.CocoMetric"
    for name in ("val", "test") if split == "val" else ("test",):
        if f"{name}_dataloader" in config:
            _use_in_loader(config[f"{name}_dataloader"], data, found, path)
            config[f"{name}_evaluator"] = dict(type=metric, ann_file=str(path), metric=metrics)


def _apply_orientation(config: Config) -> None:
    """Read images as shown, by their EXIF orientation: the sizes of converted annotations are of those."""
    for name in ("train", "val", "test"):
        for dataset in inner_datasets(config.get(f"{name}_dataloader")):
            for step in dataset.get("pipeline") or ():
                if step.get("ignore_orientation"):
                    step["ignore_orientation"] = False


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


def _use_in_loader(loader: dict, data: ObjectData, split: ObjectSplit, path: Path) -> None:
    for dataset in inner_datasets(loader):
        dataset.pop("generator", None)
        dataset.pop("ann_file_alternatives", None)
        dataset.update(
            type="pe_dense.LVISDataset" if split.federated else "pe_dense.CocoDataset",
            data_root=str(data.root),
            ann_file=relative(path, data.root),
            data_prefix=dict(img=split.images),
            # mmdet's palette has 80 colors; without a palette it generates as many as are needed.
            metainfo=dict(classes=data.classes, palette=None),
        )
