"""Adapt the config of a semantic segmentation model to a custom data set."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.formats.map_pairs import MapData
from pe_dense.datasets.formats.map_reader import read_masks, write_pairs
from pe_dense.engine.class_counts import set_num_classes
from pe_dense.engine.config_parts import kind_of, walk_dicts
from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError

_READERS = ("LoadLabelMap", "LoadAnnotations")


def use_data(
    config: Config,
    folder: str | Path,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    work_dir: str | Path | None = None,
    records: tuple[Path, ...] = (),
) -> Config:
    """Adapt a config of semantic segmentation to the custom data set in a folder, including its classes.

    Masks are read by :mod:`pe_dense.datasets.formats.semantic_masks`; polygons of objects are drawn as masks in
    ``<work dir>/data``. The number of classes is set in heads and losses; class weights of other data are removed.

    Args:
        config, folder, splits, work_dir, records: see :func:`pe_dense.detection.custom_dataset.use_data`.

    Returns:
        the config.

    Raises:
        ConfigError: if the data are not valid, or contain no masks.
    """
    converted = None if work_dir is None else Path(work_dir) / "data"
    data = read_masks(folder, splits, records=records, write_to=converted)
    data.findings.log(data.root)
    print_log(data.describe(), "current")
    if not set_num_classes(config.model, len(data.classes)):
        raise ConfigError(f"{config.filename} is not a config of semantic segmentation: its model has no 'num_classes'")
    reader = dict(type="pe_dense.LoadLabelMap", **data.reader)
    meta = dict(classes=data.classes, palette=[list(color) for color in data.palette])
    use_maps(config, data, converted, reader, _READERS, meta, "seg_map_path")
    return config


def use_maps(
    config: Config, data: MapData, folder: Path | None, reader: dict, readers: tuple[str, ...], meta: dict, map_key: str
) -> None:
    """Set images, maps and the step that reads maps in the loaders of a config, and in ``tta_pipeline``.

    Args:
        config: config, changed in place.
        data: images and maps.
        folder: folder for the lists of files; None to write nothing.
        reader: step that reads the maps, instead of those in ``readers``.
        readers: types of steps, without scope.
        meta: metainfo of the data sets.
        map_key: key of the path of a map.
    """
    for split, pairs in data.splits.items():
        path = write_pairs(folder, split, pairs) if folder else Path(f"{split}.json")
        for name in ("val", "test") if split == "val" else (split,):
            for dataset in inner_datasets(config.get(f"{name}_dataloader")):
                kept = {key: dataset[key] for key in ("pipeline", "test_mode", "indices") if key in dataset}
                dataset.clear()
                dataset.update(
                    type="pe_dense.MapFiles",
                    data_root=str(data.root),
                    ann_file=str(path),
                    map_key=map_key,
                    metainfo=meta,
                    **kept,
                )
                _replace_steps(dataset["pipeline"], reader, readers)
    _replace_steps(config.get("tta_pipeline"), reader, readers)
    config.data_root = str(data.root)
    config.pop("data_source", None)


def _replace_steps(part, reader: dict, readers: tuple[str, ...]) -> None:
    """Replace the steps of a pipeline that read maps, including those of test-time augmentation."""
    for step in walk_dicts(part):
        if kind_of(step) in readers:
            step.clear()
            step.update(reader)
