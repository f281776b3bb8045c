"""Looking for the data before a run begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from pe_dense.engine.errors import ConfigError


def check_files(config: Config, splits: tuple[str, ...]) -> None:
    """Make sure that the annotation files and image folders of a config exist.

    Data sets that make their own data (they have a ``generator``) need none.

    Args:
        config: a whole config.
        splits: which of 'train', 'val', 'test' the run will use.

    Raises:
        ConfigError: naming the first missing path, where to get the data and how to lay it out.
    """
    for split in splits:
        for dataset in inner_datasets(config.get(f"{split}_dataloader")):
            if "generator" in dataset:
                continue
            root = Path(dataset.get("data_root") or "")
            wanted = [dataset.get("ann_file"), *dict(dataset.get("data_prefix") or {}).values()]
            for path in (root / name for name in wanted if name):
                if not path.exists():
                    raise ConfigError(_missing(config, split, path))


def _missing(config: Config, split: str, path: Path) -> str:
    source = config.get("data_source") or {}
    root = config.get("data_root")
    message = f"{source.get('name', 'The data')} ({split}) is not there: {path} does not exist ({path.absolute()})."
    if source:
        message += f" Get it from {source['url']} and lay it out as {root}/{{{source['layout']}}}"
        message += ", or name its folder: --cfg-options data_root=FOLDER"
    return message


def inner_datasets(config: dict | None) -> Iterator[dict]:
    """Configs of a loader's data sets, inside of any wrapper."""
    if not config:
        return
    inner = [config["dataset"]] if isinstance(config.get("dataset"), dict) else config.get("datasets") or []
    for dataset in inner:
        yield from inner_datasets(dataset)
    if not inner:
        yield config


def empty_error(dataset: dict) -> ConfigError:
    """What to say of a data set's config that leaves no image."""
    inner = next(inner_datasets(dict(dataset=dataset)))
    classes = (inner.get("metainfo") or {}).get("classes")
    wanted = f"classes {', '.join(classes[:8])}" if classes else "its classes"
    return ConfigError(
        f"{inner.get('type')}: no image is left of {inner.get('ann_file')} in {inner.get('data_root')}: it lists none, "
        f"or none with an object of {wanted}"
    )


def check_images(dataset) -> None:
    """Make sure that every image that a data set lists is there.

    Folders are listed once each, so that this takes seconds for a hundred thousand images.

    Args:
        dataset: a built data set of MMEngine's, or a wrapper around one.

    Raises:
        ConfigError: for missing images, with their number and the first of them.
    """
    while not hasattr(dataset, "get_data_info") or hasattr(dataset, "dataset"):
        if not hasattr(dataset, "dataset"):
            return
        dataset = dataset.dataset
    name, ann_file = type(dataset).__name__, getattr(dataset, "ann_file", "its annotations")
    listed: dict[str, set[str]] = {}
    missing = []
    for index in range(len(dataset)):
        folder, file = os.path.split(dataset.get_data_info(index).get("img_path", ""))
        if not file:
            return
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if file not in listed[folder]:
            missing.append(os.path.join(folder, file))
    if missing:
        raise ConfigError(
            f"{name}: {len(missing)} of {len(dataset)} images that {ann_file} lists do not exist, "
            f"the first is {missing[0]}"
        )
