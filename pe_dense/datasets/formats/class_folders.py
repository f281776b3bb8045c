"""Folders of images by class, for zero-shot classification: ``cat/a.jpg``, ``dog/b.jpg``."""

from __future__ import annotations

from pathlib import Path

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.formats.files import is_image, join, list_files, split_named
from pe_dense.datasets.formats.findings import DataError

NAME = "folders by class"
_NAMES = "classes.json"  # class names of folders that are named otherwise, such as WordNet ids


def read(root: str | Path, wanted: tuple[str, ...] = ("test", "val", "train")) -> list[tuple[Path, str]]:
    """List images with the names of their classes.

    A class is a folder; ``_`` in its name is read as a space. ``classes.json`` may name the classes of folders
    (``{"n01440764": "tench"}``). With folders of splits above the classes (``val/cat/a.jpg``), those of one are read.

    Args:
        root: data folder.
        wanted: splits in the order of preference.

    Returns:
        (file, class), sorted by path.

    Raises:
        DataError: if there are fewer than two classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist ({root.absolute()})")
    files = list_files(root)
    present = {split_named(folder): folder for folder in files if "/" not in folder and split_named(folder)}
    top = next((present[split] for split in wanted if split in present), "")
    named = _names(root / _NAMES)
    rows, skipped = [], 0
    for folder, names in files.items():
        inner = folder[len(top) :].strip("/") if folder == top or folder.startswith(f"{top}/") or not top else None
        if inner is None or not any(map(is_image, names)):
            continue
        if not inner:
            skipped += sum(map(is_image, names))
            continue
        first = inner.split("/")[0]
        label = named.get(first, first.replace("_", " "))
        rows += [(root / join(folder, name), label) for name in names if is_image(name)]
    if len({label for _, label in rows}) < 2:
        where = f" and {skipped} images outside of them" if skipped else ""
        raise DataError(
            f"{root} contains {len({label for _, label in rows})} folders of images{where}: for classification, put "
            "the images of each class into a folder of its name"
        )
    return rows


def _names(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    names = read_json(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) and name.strip() for name in names.values()):
        raise DataError(f"{path} must be an object of class names by folder")
    return names
