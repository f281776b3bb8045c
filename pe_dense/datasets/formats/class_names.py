"""Read the class table of a data folder: names, and the pixel values or colors that stand for them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pe_dense.datasets.annotations import read_json, some
from pe_dense.datasets.formats.files import read_text, relative_name, text_lines
from pe_dense.datasets.formats.findings import DataError, FolderFindings

# Files with class names, in the order in which they are looked for. All are read as UTF-8.
FILES = (
    "classes.txt", "classes.json", "classes.csv", "class_dict.csv", "_classes.csv", "labelmap.txt", "label_colors.txt",
    "obj.names", "predefined_classes.txt", "labels.txt", "class_names.txt",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+")


@dataclass
class ClassTable:
    """Names of classes, in the order of their labels.

    Attributes:
        names: names by label.
        values: pixel value or id of each class in the files; None if they are 0, 1, 2, ...
        colors: RGB color of each class in the files; None if the table has none.
        path: the file.
    """

    names: list[str]
    values: list[int] | None = None
    colors: list[tuple[int, int, int]] | None = None
    path: Path | None = None


def find_table(
    root: Path, findings: FolderFindings, folders: Sequence[str] = ("", "train", "labels")
) -> ClassTable | None:
    """Find and read the class table of a data folder.

    ``classes.txt`` has one name per line; ``classes.json`` a list of names, an object of names by value (or of values
    by name), or a list of objects with ``name`` and optionally ``id`` or ``value`` and ``color``; CSV files, CamVid's
    ``label_colors.txt`` and CVAT's ``labelmap.txt`` have a name and a value or a color in each line.

    Args:
        root: data folder.
        findings: receives repairs.
        folders: where to look, relative to the root.

    Returns:
        the table; None if there is no such file.

    Raises:
        DataError: if it is not valid, or names occur twice.
    """
    path = next(
        (root / folder / name for folder in folders for name in FILES if (root / folder / name).is_file()), None
    )
    if path is None:
        return None
    if path.suffix == ".json":
        table = _from_json(read_json(path), path)
    elif path.suffix == ".csv":
        table = _from_csv(read_text(path, findings, root), path)
    else:
        table = _from_lines(read_text(path, findings, root), path)
    return check_table(table, findings, relative_name(path, root))


def check_table(table: ClassTable, findings: FolderFindings, place: str) -> ClassTable:
    """Check that names, values and colors of a table are unique; surrounding space is removed from names.

    Raises:
        DataError: naming what occurs twice.
    """
    stripped = [name.strip() for name in table.names]
    if stripped != table.names:
        findings.repair("space around class names removed", place)
        table.names = stripped
    if not table.names:
        raise DataError(f"{table.path} has no class names")
    for what, entries in (("names", table.names), ("values", table.values), ("colors", table.colors)):
        twice = [entry for entry in dict.fromkeys(entries or ()) if list(entries).count(entry) > 1]
        if twice:
            raise DataError(f"{table.path}: {len(twice)} class {what} occur several times: {some(twice)}")
    if empty := [str(label) for label, name in enumerate(table.names) if not name]:
        raise DataError(f"{table.path}: the names of classes {', '.join(empty[:8])} are empty")
    return table


def names_of(value, path: Path) -> ClassTable:
    """Read the value of ``names`` of a YAML file: a list, or an object of names by id.

    Raises:
        DataError: for anything else.
    """
    if isinstance(value, dict):
        try:
            by_id = {int(key): name for key, name in value.items()}
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: the keys of 'names' must be the ids of the classes, got {some(list(value))}"
            ) from None
        ids = sorted(by_id)
        value = [by_id[key] for key in ids]
    else:
        ids = None
    if not isinstance(value, list) or not all(isinstance(name, str | int | float) for name in value):
        raise DataError(f"{path}: 'names' must be a list of class names, or an object of names by id")
    return ClassTable([str(name) for name in value], None if ids == list(range(len(value))) else ids, path=path)


def _from_json(content, path: Path) -> ClassTable:
    if isinstance(content, dict) and isinstance(content.get("classes"), list | dict):
        content = content["classes"]
    if isinstance(content, dict):
        pairs = list(content.items())
        if all(isinstance(value, str) and _NUMBER.fullmatch(str(key)) for key, value in pairs):
            return _ordered([(int(key), name) for key, name in pairs], path)
        if all(type(value) is int for _, value in pairs):
            return _ordered([(value, name) for name, value in pairs], path)
        if all(_color(value) for _, value in pairs):
            return ClassTable([name for name, _ in pairs], colors=[_color(value) for _, value in pairs], path=path)
    if isinstance(content, list) and content and all(isinstance(name, str) for name in content):
        return ClassTable(list(content), path=path)
    if isinstance(content, list) and content and all(isinstance(item, dict) and "name" in item for item in content):
        names = [str(item["name"]) for item in content]
        values = [next((item[key] for key in ("value", "id", "trainId") if key in item), None) for item in content]
        colors = [_color(item.get("color")) for item in content]
        if all(type(value) is int for value in values) and None in colors:
            return _ordered(list(zip(values, names, strict=True)), path)
        return ClassTable(names, colors=None if None in colors else colors, path=path)
    raise DataError(
        f"{path} is not a table of classes: it must be a list of names, an object of names by value, or a list of "
        "objects with 'name' and 'value' or 'color'"
    )


def _ordered(pairs: list[tuple[int, str]], path: Path) -> ClassTable:
    pairs = sorted(pairs)
    values = [value for value, _ in pairs]
    return ClassTable([name for _, name in pairs], None if values == list(range(len(values))) else values, path=path)


def _color(value) -> tuple[int, int, int] | None:
    if isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        return tuple(int(value[i : i + 2], 16) for i in (1, 3, 5))
    if (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part < 256 for part in value)
    ):
        return tuple(value)
    return None


def _from_csv(text: str, path: Path) -> ClassTable:
    rows = [
        [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)
    ]
    if rows and not any(_NUMBER.fullmatch(cell) for cell in rows[0]):
        rows = rows[1:]  # the heading
    return _from_rows(rows, path)


def _from_rows(rows: list[list[str]], path: Path) -> ClassTable:
    """Read rows of a name with a value or with three numbers of a color, in any order."""
    names, numbers = [], []
    for number, row in enumerate(rows, start=1):
        texts = [cell for cell in row if cell and not _NUMBER.fullmatch(cell)]
        values = [int(cell) for cell in row if _NUMBER.fullmatch(cell)]
        if len(texts) != 1 or len(values) not in (1, 3):
            raise DataError(f"{path}, row {number}: expected a name with a pixel value or with R, G, B, got {row}")
        names.append(texts[0])
        numbers.append(tuple(values))
    lengths = {len(values) for values in numbers}
    if lengths == {3}:
        if wrong := [values for values in numbers if max(values) > 255 or min(values) < 0]:
            raise DataError(f"{path}: {len(wrong)} colors are outside of 0..255, such as {wrong[0]}")
        return ClassTable(names, colors=numbers, path=path)
    if lengths == {1}:
        return _ordered([(values[0], name) for values, name in zip(numbers, names, strict=True)], path)
    raise DataError(f"{path} has rows of different kinds: each needs a name with a pixel value, or each with R, G, B")


def _from_lines(text: str, path: Path) -> ClassTable:
    lines = [line for _, line in text_lines(text) if not line.startswith("#")]
    if path.name == "labelmap.txt":  # CVAT: name:r,g,b:parts:actions
        rows = [[line.split(":")[0], *line.split(":")[1].split(",")] if ":" in line else [line] for line in lines]
        if all(len(row) == 4 for row in rows):
            return _from_rows(rows, path)
    if path.name == "label_colors.txt":  # CamVid: r g b name
        return _from_rows([[*line.split(None, 3)] for line in lines], path)
    return ClassTable(lines, path=path)
