"""Adapt any config to the custom data in a folder, for the tools' option ``--data``."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.formats.object_reader import data_root
from pe_dense.datasets.formats.splits import SPLIT_FILE
from pe_dense.depth import custom_dataset as depth
from pe_dense.detection import custom_dataset as detection
from pe_dense.engine.config_parts import kind_of, walk_dicts
from pe_dense.engine.preflight import inner_datasets
from pe_dense.segmentation import custom_dataset as semantic
from pe_dense.segmentation import custom_panoptic as panoptic
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import find_images

TASKS = {
    "objects": "object detection",
    "panoptic": "panoptic segmentation",
    "semantic": "semantic segmentation",
    "depth": "depth estimation",
    "images": "training on images",
}
# In the order of recognition: panoptic configs may have metrics of objects, too.
_METRICS = {
    "panoptic": {"CocoPanopticMetric"},
    "objects": {"CocoMetric", "LVISMetric", "CocoOccludedSeparatedMetric", "VOCMetric", "OpenImagesMetric"},
    "semantic": {"IoUMetric", "CityscapesMetric"},
    "depth": {"DepthMetric"},
}
_IMAGE_FOLDERS = ("ImageFolder", "CaptionFolder")


def use_data(
    config: Config,
    folder: str | Path | None,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    work_dir: str | Path | None = None,
    checkpoint: str | Path | None = None,
    train_ann: str | Path | None = None,
    val_ann: str | Path | None = None,
    images: str | Path | None = None,
    depth_scale: float | None = None,
) -> Config:
    """Adapt a config to the custom data in a folder, including the classes; the config's task decides what is read.

    Args:
        config: complete config, modified in place.
        folder: data folder.
        splits: 'train' and 'val' for training, 'test' for a test or predictions.
        work_dir: the run's folder, whose ``data`` folder gets converted annotations and the split; None to write
            nothing, for predictions.
        checkpoint: the checkpoint that is tested or resumed, or its work dir: the split of its run is used again.
        train_ann, val_ann, images: parts of COCO's format that are chosen by options, see
            :func:`pe_dense.detection.custom_dataset.use_data`.
        depth_scale: meters per unit of integer depth maps.

    Returns:
        the config.

    Raises:
        ConfigError: if the data are not valid, or are those of another task.
    """
    if not folder:
        raise ConfigError(
            "--train-ann, --val-ann, --images and --depth-scale select parts of custom data: add its folder with "
            "--data FOLDER"
        )
    task = task_of(config)
    options = dict(work_dir=work_dir, records=tuple(dict.fromkeys(_records(checkpoint, work_dir))))
    chosen = dict(train_ann=train_ann, val_ann=val_ann, images=images)
    if task != "objects" and (given := [name for name, value in chosen.items() if value]):
        raise ConfigError(
            f"--{given[0].replace('_', '-')} is for detectors; {config.filename} is a config of {TASKS[task]}"
        )
    if task != "depth" and depth_scale is not None:
        raise ConfigError(f"--depth-scale is for depth; {config.filename} is a config of {TASKS[task]}")
    if task == "objects":
        return detection.use_data(config, folder, splits, **options, **chosen)
    if task == "panoptic":
        return panoptic.use_data(config, folder, splits, **options)
    if task == "semantic":
        return semantic.use_data(config, folder, splits, **options)
    if task == "depth":
        return depth.use_data(config, folder, splits, **options, scale=depth_scale)
    return _use_images(config, folder)


def task_of(config: Config) -> str:
    """Return the task of a config, one of ``TASKS``, by its metrics and data sets.

    Raises:
        ConfigError: for a config that takes no custom data.
    """
    parts = [config.get(name) for name in ("val_evaluator", "test_evaluator")]
    types = {kind_of(part) for part in walk_dicts(parts)}
    for task, metrics in _METRICS.items():
        if types & metrics:
            return task
    for dataset in inner_datasets(config.get("train_dataloader")):
        if kind_of(dataset) in _IMAGE_FOLDERS:
            return "images"
    raise ConfigError(
        f"{config.filename} takes no --data FOLDER, which is for {', '.join(TASKS.values())}; set the paths of its "
        "data sets by --cfg-options"
    )


def _use_images(config: Config, folder: str | Path) -> Config:
    """Set the folder of images without annotations; data sets for validation are not changed."""
    root, _ = data_root(folder)
    images = find_images([root])
    for dataset in inner_datasets(config.train_dataloader):
        dataset["data_root"] = str(root)
    config.data_root = str(root)
    config.pop("data_source", None)
    print_log(f"{root}: {len(images)} images", "current")
    return config


def _records(checkpoint: str | Path | None, work_dir: str | Path | None) -> list[Path]:
    """Return the files where the split of a run may be: that of the checkpoint, then that of the work dir."""
    folders = []
    if checkpoint and "://" not in str(checkpoint) and str(checkpoint) != "auto":
        path = Path(checkpoint).expanduser()
        folders.append(path if path.is_dir() else path.parent)
    if work_dir:
        folders.append(Path(work_dir))
    return [folder / "data" / SPLIT_FILE for folder in folders]
