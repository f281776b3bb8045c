"""Find and read the files of a data folder: images, text with or without a byte order mark, foreign paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.utils.image import EXTENSIONS

SPLITS = ("train", "val", "test")
# Names of folders, lists and keys of each split.
SPLIT_NAMES = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "dev", "val2017"),
    "test": ("test", "testing", "test2017"),
}
_MAX_TEXT = 1 << 26  # bytes of a text file
_WINDOWS = re.compile(r"^[A-Za-z]:[\\/]")
_DEPTH = 4  # levels of folders below the root that are listed


def split_named(name: str) -> str | None:
    """Return the split that a folder or list is named after: 'train' for 'training', None for other names."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def list_files(root: Path, depth: int = _DEPTH) -> dict[str, list[str]]:
    """List the files of a folder and its subfolders, without hidden ones.

    Args:
        root: the folder.
        depth: levels of subfolders.

    Returns:
        sorted names of files by folder, relative to the root with '/' ('' for the root itself).
    """
    found: dict[str, list[str]] = {}
    level = [""]
    for _ in range(depth + 1):
        below = []
        for folder in level:
            names = []
            for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    below.append(f"{folder}/{entry.name}" if folder else entry.name)
                else:
                    names.append(entry.name)
            found[folder] = names
        level = below
    return found


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return name.lower().endswith(EXTENSIONS)


def stem(name: str) -> str:
    """Return a name without its last suffix."""
    return PurePosixPath(name).stem


def join(folder: str, name: str) -> str:
    """Join parts of a relative path; the folder may be empty."""
    return f"{folder}/{name}" if folder else name


def read_text(path: Path, findings: FolderFindings | None = None, root: Path | None = None) -> str:
    """Read a text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Args:
        path: the file.
        findings: receives repairs.
        root: data folder, for places.

    Raises:
        DataError: if it is not text.
    """
    content = path.read_bytes()
    place = relative_name(path, root) if root else str(path)
    if len(content) > _MAX_TEXT:
        raise DataError(f"{path} has {len(content):,} bytes, too many for a text file")
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if findings is not None and (wide or content.startswith(b"\xef\xbb\xbf")):
        findings.repair("byte order mark ignored", place)
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Iterate over the lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def relative_name(path: Path, root: Path) -> str:
    """Return a path relative to a folder, with '/', if it is below, else the path itself."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def find_foreign_path(name: str, folders: list[Path]) -> Path | None:
    """Find a file or folder by a path that may come from another machine or from Windows.

    Backslashes are separators; of an absolute path, or one with '..', that does not exist, the longest end that exists
    below one of the folders is used.

    Args:
        name: path as written in a file.
        folders: folders that it may be relative to, the likeliest first.

    Returns:
        an existing path, or None.
    """
    name = name.strip().strip("'\"")
    for folder in folders:
        if name and (folder / name).exists():
            return Path(os.path.normpath(folder / name))
    parts = [part for part in re.split(r"[\\/]+", _WINDOWS.sub("", name)) if part not in ("", ".", "..")]
    for start in range(len(parts)):
        for folder in folders:
            path = folder.joinpath(*parts[start:])
            if path.exists():
                return path
    return None


def is_foreign(name: str) -> bool:
    """Return whether a path is in the form of Windows."""
    return "\\" in name or bool(_WINDOWS.match(name))


def content_hash(text: str) -> str:
    """Return a short hash of a text, for file names."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
