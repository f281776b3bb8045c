"""Adapt any config to the custom data in a folder, for the tools' option ``--data``."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from pe_dense.datasets.formats.splits import SPLIT_FILE
from pe_dense.utils.errors import ConfigError


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

    Returns:
        the config.

    Raises:
        ConfigError: if the data are not valid, or are those of another task.
    """
    from pe_dense.detection import custom_dataset as detection

    if not folder:
        raise ConfigError(
            "--train-ann, --val-ann and --images select parts of custom data: add its folder with --data FOLDER"
        )
    records = tuple(dict.fromkeys(_records(checkpoint, work_dir)))
    options = dict(work_dir=work_dir, records=records, train_ann=train_ann, val_ann=val_ann, images=images)
    return detection.use_data(config, folder, splits, **options)


def _records(checkpoint: str | Path | None, work_dir: str | Path | None) -> list[Path]:
    """Return the files where the split of a run may be: that of the checkpoint, then that of the work dir."""
    folders = []
    if checkpoint and "://" not in str(checkpoint) and str(checkpoint) != "auto":
        path = Path(checkpoint).expanduser()
        folders.append(path if path.is_dir() else path.parent)
    if work_dir:
        folders.append(Path(work_dir))
    return [folder / "data" / SPLIT_FILE for folder in folders]
