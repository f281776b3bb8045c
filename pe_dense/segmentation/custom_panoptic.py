"""Adapt the config of a panoptic segmentation model to a custom data set."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from pe_dense.datasets.davis import voc_color
from pe_dense.datasets.formats.coco_layout import relative
from pe_dense.datasets.formats.coco_panoptic import PanopticData, PanopticSplit, read_panoptic
from pe_dense.datasets.formats.objects import write_content
from pe_dense.datasets.formats.splits import SPLIT_FILE
from pe_dense.engine.class_counts import mask_heads, set_num_classes
from pe_dense.engine.preflight import inner_datasets
from pe_dense.utils.errors import ConfigError


def use_data(
    config: Config,
    folder: str | Path,
    splits: tuple[str, ...] = ("train", "val"),
    *,
    work_dir: str | Path | None = None,
    records: tuple[Path, ...] = (),
) -> Config:
    """Adapt a config of panoptic segmentation to the custom data set in a folder, including its classes.

    Args:
        config, folder, splits, work_dir, records: see :func:`pe_dense.detection.custom_dataset.use_data`.

    Returns:
        the config.

    Raises:
        ConfigError: if the data are not valid, or not in COCO's panoptic format.
    """
    converted = None if work_dir is None else Path(work_dir) / "data"
    data = read_panoptic(folder, splits, records=records, write_to=converted and converted / SPLIT_FILE)
    data.findings.log(data.root)
    print_log(data.describe(), "current")
    if not list(mask_heads(config.model)):
        raise ConfigError(f"{config.filename} has no head with things and stuff: choose a panoptic config")
    set_num_classes(config.model, len(data.classes), len(data.things))
    for split, found in data.splits.items():
        _use_split(config, data, split, found, converted)
    config.data_root = str(data.root)
    config.pop("data_source", None)
    return config


def _use_split(config: Config, data: PanopticData, split: str, found: PanopticSplit, folder: Path | None) -> None:
    path = found.path or (write_content(folder, split, found.content) if folder else Path(f"{split}.json"))
    meta = dict(
        classes=data.classes,
        thing_classes=data.things,
        stuff_classes=data.stuff,
        palette=[list(voc_color(label)) for label in range(1, len(data.classes) + 1)],
    )
    for name in ("val", "test") if split == "val" else (split,):
        for dataset in inner_datasets(config.get(f"{name}_dataloader")):
            dataset.pop("generator", None)
            dataset.update(
                type="pe_dense.CocoPanopticDataset",
                data_root=str(data.root),
                ann_file=relative(path, data.root),
                data_prefix=dict(img=found.images, seg=found.maps),
                metainfo=meta,
            )
        if name != "train":
            maps = str(data.root / found.maps)
            config[f"{name}_evaluator"] = dict(type="CocoPanopticMetric", ann_file=str(path), seg_prefix=maps)
