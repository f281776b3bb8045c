"""COCO's format of objects, and LVIS's and Roboflow's variants: JSON files with images, annotations and categories.

Source: https://cocodataset.org/#format-data. LVIS's images have ``neg_category_ids``; Roboflow's exports are
``train/_annotations.coco.json``, ``valid/`` and ``test/`` with a placeholder as the first category.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pe_dense.datasets.annotation_cache import read_table
from pe_dense.datasets.annotation_table import AnnotationTable
from pe_dense.datasets.annotations import (
    COCO_NAMES,
    LVIS_NAMES,
    AnnotationError,
    image_name,
    some,
)
from pe_dense.datasets.formats.coco_layout import candidates, choose_files, chosen_folder, find_image_folder
from pe_dense.datasets.formats.files import find_foreign_path, is_foreign
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.objects import ObjectSplit
from pe_dense.utils.errors import ConfigError

NAME = "COCO"
_ROBOFLOW = "_annotations.coco.json"


def recognize(root: Path, files: dict[str, list[str]]) -> bool:
    """Return whether a folder has a JSON file with the keys of COCO's files."""
    return bool(candidates(root))


def format_name(splits: dict[str, ObjectSplit], path: Path) -> str:
    """Return the name of the variant: COCO, LVIS or Roboflow."""
    if any(split.federated for split in splits.values()):
        return "LVIS"
    return "Roboflow COCO" if path.name == _ROBOFLOW else NAME


def read(
    root: Path,
    findings: FolderFindings,
    wanted: tuple[str, ...],
    *,
    chosen: dict[str, str | Path | None] | None = None,
    images: str | Path | None = None,
    masks: bool | None = None,
) -> tuple[dict[str, ObjectSplit], str]:
    """Read a data set in COCO's or LVIS's format.

    Files are read through their cache, see :mod:`pe_dense.datasets.annotation_cache`, as by the data sets of a run.
    Repaired, besides what :func:`~pe_dense.datasets.annotations.read_annotations` does, are file names with backslashes
    or folders of another machine, and Roboflow's placeholder category.

    Args:
        root: data folder.
        findings: receives repairs.
        wanted: splits to read.
        chosen: files given by options, by 'train' and 'val'.
        images: folder of the images given by an option.
        masks: as of :func:`~pe_dense.datasets.annotations.read_annotations`.

    Returns:
        the splits by name, 'all' if there is no split; and the name of the variant.

    Raises:
        AnnotationError: if a file is not valid.
        ConfigError: if files or images are missing or ambiguous, or classes differ between files.
    """
    found = choose_files(root, wanted, chosen or {})
    read_files = {}
    for source, path in found.values():
        if path not in read_files:
            read_files[path] = _read_split(root, path, source, findings, images, masks)
    splits = {split: read_files[path] for split, (_, path) in found.items()}
    _check_common_classes({found[split][1]: content for split, content in splits.items()})
    return splits, format_name(splits, next(iter(found.values()))[1])


def _read_split(root, path, source, findings, images, masks) -> ObjectSplit:
    table = _read_table(path, masks)
    entries = table.images()
    if not entries:
        raise ConfigError(f"{path} lists no image")
    categories = _without_placeholder(table, path, findings)
    renamed = not table.federated and _repair_names(root, path, entries, findings)
    try:
        name = image_name(entries[0], LVIS_NAMES if table.federated else COCO_NAMES)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    folder = chosen_folder(root, images, name, path) if images else find_image_folder(root, source, name, path)
    if categories is None and not renamed:
        return ObjectSplit(table, folder, path, table.federated)
    content = dict(table.content(), images=entries)
    if categories is not None:
        content["categories"] = categories
    return ObjectSplit(content, folder, federated=table.federated)


def _read_table(path: Path, masks: bool | None) -> AnnotationTable:
    """Read a file; one without any mask is read if masks are required, too, and reported over all files."""
    try:
        return read_table(path, masks=masks, quiet=True)
    except AnnotationError as error:
        if "'segmentation' is missing" not in str(error):
            raise
        table = read_table(path, masks=None, quiet=True)
        if not table.num_masks:
            return table
        raise AnnotationError(
            f"{error}. This config learns masks: for boxes alone choose one without masks, such as coco_deta_pe_b16"
        ) from error


def _without_placeholder(table: AnnotationTable, path: Path, findings: FolderFindings) -> list[dict] | None:
    """Return the categories without 0 of Roboflow's exports, the group of the others; None if there is no such one."""
    first, *others = table.categories
    if not others or first["id"] != 0 or first.get("supercategory") not in ("none", None):
        return None
    if any(item.get("supercategory") != first["name"] for item in others):
        return None
    if (table.arrays["categories"] == 0).any():  # objects of the first category
        return None
    findings.repair(f"placeholder category {first['name']!r} without objects removed", path)
    return others


def _repair_names(root: Path, path: Path, images: list[dict], findings: FolderFindings) -> bool:
    """Replace file names with backslashes or of another machine by those of existing files."""
    changed, folders = False, [path.parent, root, root / "images"]
    for image in images:
        name = image.get("file_name") or ""
        if not (is_foreign(name) or os.path.isabs(name) or re.match(r"\.{1,2}/", name)) or Path(name).is_file():
            continue
        file = find_foreign_path(name, folders)
        if file is None:
            continue
        image["file_name"] = os.path.relpath(file, root)
        findings.repair("file names of another machine or of Windows", f"{path.name} id {image['id']}")
        changed = True
    if changed:  # all names are relative to the root now
        for image in images:
            name = image.get("file_name")
            if name and not (root / name).is_file() and (file := find_foreign_path(name, folders)):
                image["file_name"] = os.path.relpath(file, root)
    return changed


def _check_common_classes(found: dict[Path, ObjectSplit]) -> None:
    (path, first), *others = [(path, split.classes) for path, split in found.items()]
    for other_path, other in others:
        if other == first:
            continue
        here = [name for name in first if name not in other]
        there = [name for name in other if name not in first]
        if here or there:
            what = f"only in the first: {some(here)}; only in the second: {some(there)}"
        else:
            what = f"their order differs: {some(first)} and {some(other)}"
        raise ConfigError(f"{path} has {len(first)} classes, {other_path} {len(other)}, and they differ: {what}")
