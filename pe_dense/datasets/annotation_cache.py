"""Cache files of annotation tables, which all processes of a run map into memory.

Parsing and checking an annotation file of LVIS's size takes seconds and gigabytes. The first process that reads it
writes the table to a cache file, next to the annotation file or, where that folder is read-only, to ``pe_dense`` in the
user's cache folder (``$XDG_CACHE_HOME``, by default ``~/.cache``). A cache file is used if it was made by this version
of the format from a file with the same content, and is intact; otherwise it is replaced. Files below
:data:`MIN_BYTES` are parsed each time.

A cache file has a header of 64 bytes (magic with the version of the format, size and BLAKE2 hash of the rest), then a
description in JSON, then the columns, each aligned to 64 bytes.
"""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from pe_dense.datasets.annotation_parser import parse_table, table_of
from pe_dense.datasets.annotation_table import AnnotationTable
from pe_dense.datasets.annotations import file_version, read_checked
from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.garbage import uncollected

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MIN_BYTES = 1_000_000
_MAGIC = b"pe_dense annotations 1\n\0"  # change the number with the format and with what the checks accept
_HEADER = struct.Struct("<24sQ32s")  # magic, size of the rest in bytes, hash of the rest
_ALIGNMENT = 64
_NAMES = {True: "masks", None: "all", False: "boxes"}  # by `masks` of :func:`read_table`
# Values of `masks` whose tables serve another value, if nothing was repaired: they passed the same checks and more.
_SERVED_BY = {True: (True,), None: (None, True), False: (False, True, None)}
_MAX_WAIT = 600.0  # seconds to wait for another process that parses the same file
_open: dict[tuple, AnnotationTable] = {}  # tables of this process, by version of the file and `masks`
_MAX_OPEN = 8


class _InvalidCacheError(Exception):
    """A cache file is damaged or of another content."""


def read_table(path: str | Path, *, masks: bool | None = None, quiet: bool = False) -> AnnotationTable:
    """Read an annotation file in COCO's or LVIS's format as columns, from its cache file if there is one.

    Checks, repairs and errors are those of :func:`pe_dense.datasets.annotations.read_annotations`. Of several processes
    that read a new file at once, one parses it and the others wait for its cache file.

    Args:
        path: a JSON file with ``images``, ``annotations`` and ``categories``.
        masks: True if each annotation must have a mask, None to check masks where present, False to leave them out.
        quiet: do not log repairs, for a file that is also read elsewhere.

    Raises:
        AnnotationError: see :func:`pe_dense.datasets.annotations.read_annotations`.
    """
    version = file_version(path)
    table = next(filter(None, (_suitable(_open.get((version, kind)), kind, masks) for kind in _SERVED_BY[masks])), None)
    if table is None:
        table = _cached(path, masks) if _is_large(path) else _parsed(path, masks)
        if version is not None:
            while len(_open) >= _MAX_OPEN:
                _open.pop(next(iter(_open)))
            _open[version, masks] = table
    if table.repairs and not quiet:
        print_log(f"{path}: repaired on reading: {'; '.join(table.repairs)}", "current", logging.WARNING)
    return table


def _suitable(table: AnnotationTable | None, kind: bool | None, masks: bool | None) -> AnnotationTable | None:
    """Return a table that was read with one value of `masks` for another value; None if it does not serve that."""
    if table is None or kind is masks:
        return table
    if table.repairs:  # of masks, or from them
        return None
    return table.without_masks() if masks is False else table


def _is_large(path: str | Path) -> bool:
    try:
        return os.path.getsize(path) >= MIN_BYTES
    except OSError:  # reported when the file is read
        return False


def _parsed(path: str | Path, masks: bool | None) -> AnnotationTable:
    with uncollected():
        table = parse_table(Path(path).read_bytes(), masks=masks)
        if table is None:
            content, repairs = read_checked(path, masks=masks)
            table = table_of(content, repairs)
        return table


def _cached(path: str | Path, masks: bool | None) -> AnnotationTable:
    digest = _digest(path)
    if (table := _find_cached(path, masks, digest)) is not None:  # without the lock: readers do not wait for each other
        return table
    with _one_at_a_time(path):
        if (table := _find_cached(path, masks, digest)) is not None:  # written by the process that had the lock
            return table
        table = _parsed(path, masks)
        for place in _places(path, masks, digest):
            with contextlib.suppress(OSError, _InvalidCacheError):
                _write(place, table, digest)
                return open_table(place, digest)
    print_log(f"{path}: no cache file could be written, so every process parses it", "current", logging.WARNING)
    return table


def _find_cached(path: str | Path, masks: bool | None, digest: str) -> AnnotationTable | None:
    """Open the cache file of an annotation file; None if there is no valid one."""
    for kind in _SERVED_BY[masks]:
        for place in _places(path, kind, digest):
            with contextlib.suppress(OSError, _InvalidCacheError):
                if (table := _suitable(open_table(place, digest), kind, masks)) is not None:
                    return table
    return None


def _digest(path: str | Path) -> str:
    """Hash the content of a file without keeping it in memory."""
    digest, buffer = hashlib.blake2b(digest_size=32), bytearray(2**20)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def _places(path: str | Path, masks: bool | None, digest: str) -> Iterator[str]:
    """Yield the possible paths of the cache file; in the user's folder, copies of a file share one."""
    folder, name = os.path.split(os.path.realpath(path))
    return cache_places(folder, f"{name}.{_NAMES[masks]}", f"{digest[:32]}.{_NAMES[masks]}")


def cache_places(folder: str | Path, name: str, unique: str) -> Iterator[str]:
    """Yield the possible paths of a cache file: in a folder of data, and in the user's cache folder.

    Args:
        folder: the folder.
        name: name in the folder.
        unique: name in the user's cache folder.
    """
    yield os.path.join(folder, f".{name}.cache")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield os.path.join(user, "pe_dense", "annotations", f"{unique}.cache")


@contextlib.contextmanager
def _one_at_a_time(path: str | Path) -> Iterator[None]:
    """Lock an annotation file against other readers that would parse it, as far as the file system has locks."""
    if fcntl is None:
        yield
        return
    with open(path, "rb") as file:  # closing it releases the lock
        end = time.monotonic() + _MAX_WAIT
        while time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                break
        yield


def _write(place: str, table: AnnotationTable, digest: str) -> None:
    """Write a cache file atomically."""
    offset, columns = 0, {}
    for name, values in table.arrays.items():
        columns[name] = dict(dtype=values.dtype.str, shape=values.shape, offset=offset)
        offset += -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT
    description = json.dumps(
        dict(source=digest, columns=columns, categories=table.categories, repairs=table.repairs)
    ).encode()
    description += b" " * (-len(description) % _ALIGNMENT)
    pieces = [struct.pack("<Q56x", len(description)), description]
    for values in table.arrays.values():
        pieces += [np.ascontiguousarray(values).reshape(-1).view(np.uint8), bytes(-values.nbytes % _ALIGNMENT)]
    hashed = hashlib.blake2b(digest_size=32)
    for piece in pieces:
        hashed.update(piece)
    with atomic_write(place) as file:
        file.write(_HEADER.pack(_MAGIC, sum(map(len, pieces)), hashed.digest()))
        for piece in pieces:
            file.write(piece)


def open_table(place: str, digest: str | None = None) -> AnnotationTable:
    """Map a cache file into memory.

    Args:
        place: path of the cache file.
        digest: hash of the annotation file, which is compared; None to accept any.

    Raises:
        OSError: if the file cannot be read.
    """
    large = os.path.getsize(place) > _HEADER.size
    content = np.asarray(np.memmap(place, np.uint8, "r")) if large else np.zeros(0, np.uint8)
    if len(content) < _HEADER.size + 64:
        raise _InvalidCacheError(f"{place} is truncated")
    magic, size, hashed = _HEADER.unpack(bytes(content[: _HEADER.size]))
    rest = content[_HEADER.size :]
    if magic != _MAGIC or size != len(rest):
        raise _InvalidCacheError(f"{place} is truncated or of another version")
    (length,) = struct.unpack("<Q", bytes(rest[:8]))
    # The hash covers the description, too; it is only parsed before to be faster for a file of another content.
    try:
        description = json.loads(bytes(rest[64 : 64 + length]))
        source = description["source"]
    except (ValueError, KeyError, TypeError):
        raise _InvalidCacheError(f"{place} is damaged") from None
    if digest is not None and source != digest:
        raise _InvalidCacheError(f"{place} belongs to another content")
    if hashlib.blake2b(rest, digest_size=32).digest() != hashed:
        raise _InvalidCacheError(f"{place} is damaged")
    arrays, data = {}, rest[64 + length :]
    for name, column in description["columns"].items():
        dtype, shape = np.dtype(column["dtype"]), column["shape"]
        end = column["offset"] + dtype.itemsize * int(np.prod(shape))
        arrays[name] = data[column["offset"] : end].view(dtype).reshape(shape)
    return AnnotationTable(arrays, description["categories"], description["repairs"], place)


def _reduce(table: AnnotationTable) -> tuple:
    """Pickle a table: data workers that are not forked map the file again instead of receiving a copy of it."""
    if table.source is not None:
        return open_table, (table.source,)
    return AnnotationTable, (table.arrays, table.categories, table.repairs)


copyreg.pickle(AnnotationTable, _reduce)
