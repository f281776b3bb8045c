"""Adapt the config of a depth model to a custom data set."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.formats.depth_maps import FILE
from pe_dense.datasets.formats.map_reader import read_depth
from pe_dense.engine.config_parts import kind_of, set_below, walk_dicts
from pe_dense.segmentation.custom_dataset import use_maps
from pe_dense.utils.atomic_write import write_json

_READERS = ("LoadDepthMap", "LoadDepthAnnotation")
_PUBLISHED_ONLY = ("CropBox", "CropBottomCenter")  # crops that suit the images of NYU and KITTI only


def use_data(
    config: Config,
    folder: str | Path,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    work_dir: str | Path | None = None,
    records: tuple[Path, ...] = (),
    scale: float | None = None,
) -> Config:
    """Adapt a config of depth estimation to the custom data set in a folder.

    The largest depth of heads and metrics is raised to that of the data, or set to that of ``depth.json``; it is stored
    in ``<work dir>/data``, since a head's outputs depend on it. Crops that only suit the images of NYU or
    KITTI are removed.

    Args:
        config, folder, splits, work_dir, records: see :func:`pe_dense.detection.custom_dataset.use_data`.
        scale: meters per unit of integer maps; None for that of ``depth.json``, or else 0.001.

    Returns:
        the config.

    Raises:
        ConfigError: if the data are not valid, or contain no depth maps.
    """
    converted = None if work_dir is None else Path(work_dir) / "data"
    data = read_depth(folder, splits, scale=scale, records=records, write_to=converted)
    data.findings.log(data.root)
    print_log(data.describe(), "current")
    reader = dict(data.reader)
    max_depth = _max_depth(config, reader.pop("max_depth"), records, data.root)
    for name in ("max_depth", "max_depth_eval"):
        for part in (config.model, config.get("val_evaluator"), config.get("test_evaluator")):
            set_below(part, name, max_depth)
    for evaluator in (config.get("val_evaluator"), config.get("test_evaluator")):
        set_below(evaluator, "crop_type", None)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "tta_pipeline"):
        if name in config:
            config[name] = _without_steps(config[name])
    if converted is not None and not (converted / FILE).is_file():
        write_json(converted / FILE, dict(scale=reader["depth_rescale_factor"], max_depth=max_depth))
    meta = dict(classes=(), max_depth=max_depth)
    use_maps(config, data, converted, dict(type="pe_dense.LoadDepthMap", **reader), _READERS, meta, "depth_map_path")
    return config


def _max_depth(config: Config, highest: float, records: tuple[Path, ...], root: Path) -> float:
    """Return the largest depth in meters of the run, of ``depth.json``, or of the data and the config."""
    for path in (*(record.parent / FILE for record in records), root / FILE):
        if path.is_file() and "max_depth" in (content := read_json(path)):
            return float(content["max_depth"])
    depths = [item.get("max_depth") for item in walk_dicts(config.model)]
    depths = [value for value in depths if isinstance(value, int | float)]
    return float(max([highest, *depths]))


def _without_steps(part):
    """Return a part of a config without the steps of pipelines that only suit the images of NYU or KITTI."""
    if isinstance(part, dict):
        part.update({key: _without_steps(value) for key, value in part.items()})
        return part
    if not isinstance(part, list):
        return part
    return [_without_steps(item) for item in part if not (isinstance(item, dict) and kind_of(item) in _PUBLISHED_ONLY)]
