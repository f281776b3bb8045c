"""Read images with label or depth maps of any format, with a split into training and validation."""

from __future__ import annotations

import json
from pathlib import Path

from pe_dense.datasets.formats import depth_maps, semantic_masks
from pe_dense.datasets.formats.files import content_hash
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.map_pairs import MapData
from pe_dense.datasets.formats.object_reader import data_root, object_format, read_objects
from pe_dense.datasets.formats.rasterize import rasterize
from pe_dense.datasets.formats.splits import SPLIT_FILE, complete_splits
from pe_dense.utils.atomic_write import write_json


def read_masks(
    folder: str | Path,
    wanted: tuple[str, ...],
    *,
    records: tuple[Path, ...] = (),
    write_to: Path | None = None,
    strict: bool = True,
) -> MapData:
    """Read data for semantic segmentation: masks, or else objects whose polygons and masks are drawn as such.

    Args:
        folder: data folder.
        wanted: splits to read; 'test' without such images is validation.
        records: files of an earlier split.
        write_to: folder of the run's data, for a new split and drawn masks; None to write nothing.
        strict: raise an error if there are problems; otherwise they are in ``findings``.

    Raises:
        ConfigError: if the data are not valid, or are those of another task.
    """
    root, is_yolo = data_root(folder)
    split_file = write_to and write_to / SPLIT_FILE
    if not is_yolo and semantic_masks.recognize(root):
        data = semantic_masks.read(root, FolderFindings())
        return _with_splits(data, wanted, records, split_file, strict)
    if not is_yolo and object_format(root, FolderFindings()) is None:
        raise DataError(
            f"{root} contains neither masks (images/ and masks/, see docs/custom_data.md) nor objects with polygons"
            f"{_others(root)}"
        )
    objects = read_objects(folder, wanted, masks=True, records=records, write_to=split_file, strict=strict)
    return rasterize(objects, write_to)


def read_depth(
    folder: str | Path,
    wanted: tuple[str, ...],
    *,
    scale: float | None = None,
    records: tuple[Path, ...] = (),
    write_to: Path | None = None,
    strict: bool = True,
) -> MapData:
    """Read data for depth estimation.

    Args:
        folder, wanted, records, write_to, strict: see :func:`read_masks`.
        scale: meters per unit of integer maps; None for that of ``depth.json``, or else 0.001 (millimeters).

    Raises:
        ConfigError: if the data are not valid, or are those of another task.
    """
    root, _ = data_root(folder)
    data = depth_maps.read(root, FolderFindings(), scale)
    if not data.splits:
        raise DataError(f"{root} contains no depth maps (images/ and depth/, see docs/custom_data.md){_others(root)}")
    return _with_splits(data, wanted, records, write_to and write_to / SPLIT_FILE, strict)


def _others(root: Path) -> str:
    """Describe what else a folder contains, for errors."""
    module = object_format(root, FolderFindings())
    if module:
        found = f"{module.NAME} objects"
    elif depth_maps.recognize(root):
        found = depth_maps.NAME
    else:
        found = semantic_masks.NAME if semantic_masks.recognize(root) else None
    return f"; it contains {found}: choose a config for those" if found else ""


def _with_splits(data: MapData, wanted, records, split_file: Path | None, strict: bool) -> MapData:
    if strict:
        data.findings.check(data.root, data.format)

    def select(pairs: list[tuple[str, str]], names: list[str]) -> list[tuple[str, str]]:
        maps = dict(pairs)
        return [(image, maps[image]) for image in names]

    data.splits = complete_splits(
        data.root,
        data.splits,
        wanted,
        data.findings,
        labels=lambda pairs: {image: data.present.get(image, {}) for image, _ in pairs},
        select=select,
        records=records,
        write_to=split_file,
    )
    return data


def write_pairs(folder: Path, name: str, pairs: list[tuple[str, str]]) -> Path:
    """Write the list of images and maps of a split, for :class:`~pe_dense.datasets.map_files.MapFiles`."""
    text = json.dumps(pairs)
    path = (folder / f"{name}_{content_hash(text)}.json").absolute()
    if not path.is_file():
        write_json(path, pairs)
    return path
