"""Data sets of images with captions or labels: folders, tables and webdataset shards."""

from __future__ import annotations

import csv
import json
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch.utils.data import Dataset

from pe_dense.datasets.image_folder import ImageFolder, ImageReader, UnusableImageError
from pe_dense.datasets.webdataset import WebImages
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import EXTENSIONS

TABLES = (".csv", ".jsonl")
_SHOWN = 3
_MAX_TEXT = 1 << 20  # bytes of a caption file


def read_table(path: str | Path, column: str, root: str | Path | None = None) -> list[tuple[Path, str]]:
    """Read the files and texts of a CSV or JSON lines file.

    Args:
        path: a CSV file with the columns ``file`` and ``column``, or a JSON lines file of objects with ``file`` and
            ``column``, or with its plural and a list of texts. A file may occur several times. Folders are separated by
            slashes or backslashes.
        column: 'caption' or 'label'.
        root: folder that files are relative to; that of the table by default.

    Returns:
        (file, text) in the table's order. Files without text are left out with one warning that counts and names them.

    Raises:
        ConfigError: if the table cannot be read, a column is missing, or no row is left.
        FileNotFoundError: if the table or a file that it names does not exist.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    rows = _csv_rows(path, column) if path.suffix.lower() == ".csv" else _json_rows(path, column)
    empty = list(dict.fromkeys(name for name, text in rows if not text))
    # A file that has another caption is not left out.
    captioned = {name for name, text in rows if text}
    _warn_of_missing([name for name in empty if name not in captioned], column, str(path))
    kept = [(_located(root, name), text) for name, text in rows if text]
    if not kept:
        raise ConfigError(f"{path} contains no row with a {column}")
    files = list(dict.fromkeys(file for file, _ in kept))
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of {len(files)} files of {path} do not exist, such as {absent[0]}: they are relative to "
            f"{root}"
        )
    return kept


def _located(root: Path, name: str) -> Path:
    """Path of a file; a backslash that is not part of a name separates folders, as in tables written on Windows."""
    file = root / name
    return file if "\\" not in name or file.is_file() else root / name.replace("\\", "/")


def _csv_rows(path: Path, column: str) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as content:
            # Without `strict`, a quote that is not closed would take all rows after it into one text.
            reader = csv.DictReader(content, strict=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if missing := [name for name in ("file", column) if name not in columns]:
        found = ", ".join(columns) or "none"
        raise ConfigError(f"{path} lacks the column {', '.join(missing)}; found: {found}")
    named = [((row["file"] or "").strip(), (row[column] or "").strip()) for row in rows]
    if unnamed := [number for number, (name, text) in enumerate(named, start=1) if text and not name]:
        raise ConfigError(f"{path}: row {unnamed[0]} after the header names no file")
    return [(name, text) for name, text in named if name]  # spreadsheets write empty rows, ",", at the end


def _json_rows(path: Path, column: str) -> list[tuple[str, str]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            texts = texts_of(row, column)
            if texts is None or not isinstance(row.get("file"), str):
                raise ConfigError(
                    f"{path}, line {number}: not an object with 'file' and '{column}' (a text) or '{column}s' (a list "
                    f"of texts): {line[:80]}"
                )
            rows += [(row["file"], text) for text in texts or [""]]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a JSON lines file in UTF-8 (the name of a CSV file ends in .csv): {error}"
        ) from error
    return rows


def texts_of(row, column: str) -> list[str] | None:
    """Texts of an object from a JSON file, under ``column`` or its plural, without surrounding space or empty ones.

    Returns:
        the texts, of which there may be none; None for something other than a text or a list of texts.
    """
    if not isinstance(row, Mapping):
        return None
    values = row.get(column, row.get(f"{column}s"))
    values = [values] if isinstance(values, str) or values is None else values
    if not isinstance(values, list) or not all(isinstance(value, str) or value is None for value in values):
        return None
    return [value.strip() for value in values if value and value.strip()]


def _warn_of_missing(names: Sequence[str], column: str, source: str) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        print_log(
            f"{source}: {len(names)} images without a {column} are left out: {', '.join(names[:_SHOWN])}{more}",
            logger="current",
            level=logging.WARNING,
        )


class _CaptionedImages(ImageFolder):
    """Mixin: an image with one of its captions, drawn by Python's RNG, which is seeded for each sample."""

    captions: dict[str, list[str]]

    def __getitem__(self, index: int) -> dict:
        """An image with ``caption``, and the other entries of :class:`~pe_dense.datasets.image_folder.ImageFolder`."""
        item = super().__getitem__(index)
        return dict(item, caption=random.choice(self.captions[item["path"]]))


@DATASETS.register_module()
class CaptionFolder(_CaptionedImages):
    """Images of a folder and below, with their captions in text files beside them (``photo.jpg``, ``photo.txt``).

    A text file has one caption per line; one of them is drawn at random each time. Images without one are left out
    with a warning that counts and names them.

    Args:
        data_root, pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageFolder`.

    Raises:
        FileNotFoundError: if the folder does not exist or contains no image.
        ConfigError: if no image has a caption, or a text file is not UTF-8.
    """

    def __init__(self, data_root: str | Path, pipeline: Sequence[dict], min_side: int = 32):
        super().__init__(data_root, pipeline, min_side)
        found = {str(path): _lines_of(path.with_suffix(".txt")) for path in self.paths}
        _warn_of_missing([path for path, captions in found.items() if not captions], "caption", str(data_root))
        self.captions = {path: captions for path, captions in found.items() if captions}
        if not self.captions:
            raise ConfigError(
                f"none of the {len(found)} images in {data_root} has a caption: write them into a .txt file beside "
                f"each image ({self.paths[0].with_suffix('.txt')}), or use pe_dense.CaptionTable for one file with all"
            )
        self.paths = [path for path in self.paths if str(path) in self.captions]


def _lines_of(path: Path) -> list[str]:
    if not path.is_file():
        return []
    if path.stat().st_size > _MAX_TEXT:
        raise ConfigError(f"{path} has more than {_MAX_TEXT:,} bytes: not a file of captions")
    try:
        return _lines(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: {error}") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@DATASETS.register_module()
class CaptionTable(_CaptionedImages):
    """Images with captions of one CSV or JSON lines file; of several captions, one is drawn at random each time.

    Args:
        ann_file: see :func:`read_table`, with the column ``caption``; relative to ``data_root``.
        pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageReader`.
        data_root: folder that files are relative to; that of ``ann_file`` by default.

    Raises:
        ConfigError, FileNotFoundError: see :func:`read_table`; ConfigError for another ending, too.
    """

    def __init__(
        self, ann_file: str | Path, pipeline: Sequence[dict], data_root: str | Path | None = None, min_side: int = 32
    ):
        path = Path(data_root or "") / ann_file
        if path.suffix.lower() not in TABLES:
            raise ConfigError(f"captions are read from {' or '.join(TABLES)} files, got {path}")
        self.captions = {}
        for file, caption in read_table(path, "caption", data_root):
            self.captions.setdefault(str(file), []).append(caption)
        self.paths = [Path(file) for file in self.captions]
        self._read = ImageReader(pipeline, min_side)


@DATASETS.register_module()
class WebCaptions(WebImages):
    """Images with captions of webdataset shards: members ``<key>.jpg`` with ``<key>.txt`` or ``<key>.json``.

    A ``.txt`` has one caption per line, a ``.json`` has ``caption`` or ``captions``; one of them is drawn at random.
    Images without a caption are skipped and reported like images that cannot be read.

    Args:
        urls, pipeline, min_side, visit: see :class:`~pe_dense.datasets.webdataset.WebImages`.
    """

    endings = (*EXTENSIONS, ".txt", ".json")

    def describe(self, shard, number: int, path: str) -> dict:
        """See :class:`~pe_dense.datasets.webdataset.WebImages`: draw a caption."""
        captions = []
        if shard.texts[number] >= 0:
            name, content = shard.read(shard.texts[number])
            try:
                text = content.read(_MAX_TEXT).decode("utf-8-sig")
                captions = _lines(text) if name.lower().endswith(".txt") else texts_of(json.loads(text), "caption")
            except (UnicodeDecodeError, ValueError, RecursionError):
                captions = []
        if not captions:
            raise UnusableImageError(f"{path} has no caption (.txt or .json of the same name)")
        return dict(caption=random.choice(captions))


@DATASETS.register_module()
class LabeledImages(Dataset):
    """Images and labels of a CSV file, for zero-shot classification.

    Args:
        ann_file: see :func:`read_table`, with the column ``label``; relative to ``data_root``.
        pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageReader`.
        data_root: folder that files are relative to; that of ``ann_file`` by default.

    Attributes:
        metainfo: ``classes``, the distinct labels in alphabetical order.

    Raises:
        ConfigError, FileNotFoundError: see :func:`read_table`.
    """

    def __init__(
        self, ann_file: str | Path, pipeline: Sequence[dict], data_root: str | Path | None = None, min_side: int = 32
    ):
        self.rows = read_table(Path(data_root or "") / ann_file, "label", data_root)
        self.metainfo = dict(classes=tuple(sorted({label for _, label in self.rows})))
        self._read = ImageReader(pipeline, min_side)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        """What the pipeline makes of ``image``, with ``path`` and ``label``, an index into the classes.

        Raises:
            UnusableImageError: if the image cannot be used.
        """
        file, label = self.rows[index]
        number = self.metainfo["classes"].index(label)
        return dict(self._read(file, str(file)), path=str(file), label=number)
