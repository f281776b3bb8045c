"""Typed fields of annotation files: parse unambiguous values and report all others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

MISSING: Any = object()
MAX_ID = 2**53  # largest integer that all JSON parsers represent exactly
_INTEGER = re.compile(r"\s*[+-]?\d{1,16}(\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d{1,16}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?\s*", re.ASCII)
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_SHOWN = 3  # ids in a message


class FieldError(ValueError):
    """A value is not valid in its field; the message describes the value."""


class Findings:
    """Problems and repairs of a file, counted by kind.

    Attributes:
        problems: descriptions of errors that make the file unusable.
        repairs: descriptions of values that were corrected.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.repairs: list[str] = []

    def problem(self, part: str, entries: Sequence, rows: Iterable[int], what: str, expected: str = "") -> None:
        """Report entries with a problem.

        Args:
            part: 'images', 'annotations' or 'categories'.
            entries: all entries of the part.
            rows: indices of the entries with the problem.
            what: field and error.
            expected: what is allowed.
        """
        rows = list(rows)
        if rows:
            expected = f", must be {expected}" if expected else ""
            self.problems.append(f"{what} in {len(rows)} of {len(entries)} {part}{expected} ({_ids(entries, rows)})")

    def repair(self, part: str, count: int, what: str) -> None:
        """Report a repair.

        Args:
            part: 'images', 'annotations' or 'categories'.
            count: number of repaired entries.
            what: field and repair.
        """
        if count:
            self.repairs.append(f"{what} in {count} {part}")


def _ids(entries: Sequence, rows: Sequence[int]) -> str:
    """Name the first of some entries by id, or by index where ids are missing."""
    ids = [entries[row].get("id") if isinstance(entries[row], dict) else None for row in rows[:_SHOWN]]
    more = ", ..." if len(rows) > _SHOWN else ""
    if all(isinstance(value, int | str) and not isinstance(value, bool) for value in ids):
        return f"id{'s' if len(rows) > 1 else ''} {', '.join(short(value) for value in ids)}{more}"
    return f"number{'s' if len(rows) > 1 else ''} {', '.join(str(row) for row in rows[:_SHOWN])} of the list{more}"


def short(value) -> str:
    """Format a value for a message: its ``repr``, escaped to ASCII if it cannot be printed, at most 40 characters."""
    text = repr(value)
    if not text.isprintable():
        text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def kind(value) -> str:
    """Describe the type of a JSON value for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
    return "out of range"


def read_integer(value, low: int = -MAX_ID, high: int = MAX_ID) -> int:
    """Read an integer, also one given as text or with a decimal point.

    Raises:
        FieldError: for anything else.
    """
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value.split(".")[0])
    elif isinstance(value, float) and math.isfinite(value):
        if not value.is_integer():
            raise FieldError("not an integer")
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise FieldError(kind(value))
    return value


def read_number(value) -> float:
    """Read a finite number, also one given as text.

    Raises:
        FieldError: for anything else.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float) or not abs(value) <= 1e300:
        raise FieldError(kind(value))
    return value


def read_flag(value) -> int:
    """Read 0 or 1, also as text, with a decimal point, as true or false; null and NaN are 0.

    Raises:
        FieldError: for anything else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 0
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    raise FieldError(kind(value))


def read_text(value) -> str:
    """Read text without control characters; numbers are converted to text.

    Raises:
        FieldError: for anything else.
    """
    if type(value) in (int, float) and abs(value) <= MAX_ID:
        return str(value)
    if not isinstance(value, str):
        raise FieldError(kind(value))
    if not value.strip():
        raise FieldError("empty")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in value):
        raise FieldError("text with control characters or unpaired surrogates")
    return value


def read_column(
    findings: Findings,
    part: str,
    entries: list[dict],
    field: str,
    read: Callable,
    expected: str,
    *,
    plain: tuple[type, ...],
    optional: bool = False,
    check: Callable[[set], bool] | None = None,
) -> list:
    """Read a field of all entries; values that need a repair are replaced in the entries.

    Args:
        findings: receives problems and repairs.
        part: 'images', 'annotations' or 'categories'.
        entries: all entries of the part.
        field: name of the field.
        read: parses a value, or raises :class:`FieldError`.
        expected: what is allowed, for the message.
        plain: types that need no parsing, if ``check`` accepts the set of values.
        optional: whether entries without the field are accepted.
        check: predicate on the set of all values.

    Returns:
        the values; ``MISSING`` where the field is missing or invalid.
    """
    values = [entry.get(field, MISSING) for entry in entries]
    types = set(map(type, values))
    if types <= set(plain) and (check is None or check(set(values))):
        return values
    faults: dict[str, list[int]] = {}
    repairs: dict[Hashable, list] = {}
    for row, value in enumerate(values):
        if value is MISSING:
            if not optional:
                faults.setdefault("missing", []).append(row)
            continue
        try:
            meaning = read(value)
        except FieldError as error:
            faults.setdefault(str(error), []).append(row)
            values[row] = MISSING
            continue
        if type(meaning) is not type(value) or meaning != value:
            values[row] = entries[row][field] = meaning
            repairs.setdefault(kind_of_repair(value), []).append((value, meaning))
    for fault, rows in faults.items():
        if fault == "missing":
            findings.problem(part, entries, rows, f"'{field}' is missing")
        else:
            findings.problem(part, entries, rows, f"'{field}' is {fault}", expected)
    for pairs in repairs.values():
        before, after = pairs[0]
        findings.repair(part, len(pairs), f"'{field}' {short(before)} read as {short(after)}")
    return values


def kind_of_repair(value) -> str:
    """Return the key by which repairs are grouped: the types before and after."""
    return type(value).__name__


_MOST = 0.75  # fraction of boxes that must match a convention


def wrong_convention(boxes: np.ndarray, areas: np.ndarray, sizes: np.ndarray, extents: np.ndarray) -> str | None:
    """Detect boxes in another format than COCO's.

    Boxes are compared with the extents of masks if there are any. Without masks, boxes are reported as corners if all
    of them are valid corners and either ``area`` matches that or many would extend beyond their image as left, top,
    width and height; and as normalized if none is larger than a pixel.

    Args:
        boxes: N x 4, as in the file.
        areas: N, as in the file; NaN where missing.
        sizes: width and height of the images, N x 2.
        extents: left, top, right and bottom of the masks, N x 4; NaN where unknown.

    Returns:
        the convention, or None for COCO's.
    """
    known = np.isfinite(boxes).all(axis=1) & np.isfinite(sizes).all(axis=1)
    boxes, areas, sizes, extents = boxes[known], areas[known], sizes[known], extents[known]
    if not len(boxes):
        return None
    if (sizes > 4).all() and np.abs(boxes).max() <= 1 and (boxes % 1 != 0).any():
        return _NORMALIZED
    masked = np.isfinite(extents).all(axis=1)
    masked &= (extents[:, 2:] - extents[:, :2] >= 1).all(axis=1)
    if masked.any():
        return _by_masks(boxes[masked], sizes[masked], extents[masked])
    return _CORNERS if _are_corners(boxes, areas, sizes) else None


_CORNERS = "corners [left, top, right, bottom]"
_NORMALIZED = "normalized to the image's size"


def _by_masks(boxes: np.ndarray, sizes: np.ndarray, extents: np.ndarray) -> str | None:
    """Find the convention in which most boxes match the extents of their masks, if COCO's does not."""
    if _share(_from_corner(boxes), extents) >= 0.5:
        return None
    scale = np.concatenate([sizes, sizes], axis=1)
    swapped = boxes[:, [1, 0, 3, 2]]
    candidates = {
        _CORNERS: boxes,
        "[center x, center y, width, height]": _from_center(boxes),
        "[top, left, height, width]": _from_corner(swapped),
        "[top, left, bottom, right]": swapped,
        _NORMALIZED: _from_corner(boxes * scale),
        f"{_NORMALIZED}, as corners": boxes * scale,
        f"{_NORMALIZED}, with centers": _from_center(boxes * scale),
        "in percent of the image's size": _from_corner(boxes * scale / 100),
    }
    shares = {name: _share(corners, extents) for name, corners in candidates.items()}
    best = max(shares, key=shares.get)
    if shares[best] >= _MOST:
        return best
    return None


def _share(corners: np.ndarray, extents: np.ndarray) -> float:
    """Return the fraction of boxes that nearly match the extents of their masks."""
    sides = (extents[:, 2:] - extents[:, :2]).max(axis=1)
    return float((np.abs(corners - extents).max(axis=1) <= np.maximum(1.5, 0.05 * sides)).mean())


def _from_corner(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _from_center(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _are_corners(boxes: np.ndarray, areas: np.ndarray, sizes: np.ndarray) -> bool:
    possible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= sizes + 1).all(axis=1)
    if possible.mean() < 0.99:
        return False
    beyond = (boxes[:, :2] + boxes[:, 2:] > sizes + 2).any(axis=1).mean()
    as_corners = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    as_sides = np.prod(boxes[:, 2:], axis=1)
    said = np.isfinite(areas) & (areas > 0) & (np.abs(as_corners - as_sides) > 0.02 * as_sides)
    if said.any():
        if (np.abs(areas - as_corners) <= 0.01 * as_corners + 1)[said].mean() >= _MOST:
            return True
        if (np.abs(areas - as_sides) <= 0.01 * as_sides + 1)[said].mean() >= _MOST and len(boxes) < 10:
            return False
    return bool(beyond >= (0.5 if len(boxes) < 10 else 0.2))
