"""Check and repair the masks of annotation files: polygons and run-length codes."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain

import numpy as np

from pe_dense.datasets.annotation_fields import FieldError, Findings, read_integer, read_number
from pe_dense.datasets.run_lengths import decode_counts, measure_runs

_CHUNK = 20_000  # annotations per chunk, which bounds the memory
_NUMBERS = {int, float}
# How far a polygon may go beyond its image, in units of the image's longer side, and how long its outline may be, in
# pixels: pycocotools and faster-coco-eval allocate memory by the outline's length.
_FAR = 3
_MAX_OUTLINE = 4e6


class Masks:
    """Extents and areas of N masks.

    Attributes:
        extent: left, top, right and bottom in pixels (N, 4); NaN for missing and empty masks.
        area: area in pixels (N), for polygons the sum over their parts, ignoring overlap; NaN for missing masks.
    """

    def __init__(self, count: int) -> None:
        self.extent = np.full((count, 4), np.nan)
        self.area = np.full(count, np.nan)


def check_masks(findings: Findings, annotations: list[dict], sizes: np.ndarray, *, required: bool) -> Masks:
    """Check ``segmentation`` of N annotations, and convert unambiguous masks to COCO's format.

    COCO's format is a list of polygons ``[x, y, x, y, ...]`` or a run-length encoding (RLE) ``{size, counts}``. Also
    accepted are: one polygon without the outer list, points as pairs or as ``{x, y}``, numbers as text, and an RLE in a
    list. Parts of fewer than three points are removed from masks with other parts.

    Args:
        findings: receives problems and repairs.
        annotations: their masks are replaced by repaired ones.
        sizes: width and height of each annotation's image (N, 2), NaN where unknown.
        required: whether annotations without a mask are a problem.
    """
    masks = Masks(len(annotations))
    faults: dict[str, list[int]] = defaultdict(list)
    repairs: dict[str, int] = defaultdict(int)
    for start in range(0, len(annotations), _CHUNK):
        _check_chunk(annotations, start, sizes, masks, faults, repairs)
    if not required:
        faults.pop("is missing", None)
    for fault, rows in faults.items():
        findings.problem("annotations", annotations, sorted(rows), f"'segmentation' {fault}")
    for repair, count in repairs.items():
        findings.repair("annotations", count, f"'segmentation' {repair}")
    return masks


def _check_chunk(annotations, start, sizes, masks: Masks, faults, repairs) -> None:
    chunk = annotations[start : start + _CHUNK]
    parts: list[list] = []  # polygons of this chunk
    owner: list[int] = []  # their annotations
    codes: list[int] = []
    for row, annotation in enumerate(chunk):
        mask = annotation.get("segmentation")
        if type(mask) is list and mask and set(map(type, mask)) == {list}:
            parts.extend(mask)
            owner.extend([row] * len(mask))
        elif type(mask) is dict and "counts" in mask:
            codes.append(row)
        else:
            parts.append([])  # no points: checked individually
            owner.append(row)
    odd = _odd_rows(parts, owner)
    parts, owner = _without(odd, parts, owner)
    for row in sorted(odd):
        annotation = chunk[row]
        try:
            mask, labels = _normalize(annotation.get("segmentation"))
        except FieldError as error:
            faults[str(error)].append(start + row)
            continue
        for label in labels:
            repairs[label] += 1
        annotation["segmentation"] = mask
        if isinstance(mask, dict):
            codes.append(row)
        else:
            parts.extend(mask)
            owner.extend([row] * len(mask))
    rows = slice(start, start + len(chunk))
    try:
        values = np.fromiter(chain.from_iterable(parts), np.float64)
    except OverflowError:  # an integer with hundreds of digits
        huge = {row for part, row in zip(parts, owner, strict=True) if not _fits(part)}
        faults["is far outside of its image"].extend(start + row for row in huge)
        parts, owner = _without(huge, parts, owner)
        values = np.fromiter(chain.from_iterable(parts), np.float64)
    if parts:
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        measure_polygons(values, lengths, np.array(owner), start, sizes[rows], masks, faults)
    if codes:
        _check_codes(chunk, codes, start, sizes[rows], masks, faults, repairs)


def _without(rows: set[int], parts: list[list], owner: list[int]) -> tuple[list[list], list[int]]:
    """Return polygons and their annotations without those of some rows."""
    if not rows:
        return parts, owner
    kept = [index for index, row in enumerate(owner) if row not in rows]
    return [parts[index] for index in kept], [owner[index] for index in kept]


def _odd_rows(parts: list[list], owner: list[int]) -> set[int]:
    """Find annotations with a polygon that is not a list of three or more pairs of numbers."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    odd = {owner[i] for i in np.flatnonzero((lengths % 2 == 1) | (lengths < 6)).tolist()}
    if not set(map(type, chain.from_iterable(parts))) <= _NUMBERS:
        odd |= {row for part, row in zip(parts, owner, strict=True) if not set(map(type, part)) <= _NUMBERS}
    return odd


def _fits(part: list) -> bool:
    return all(type(value) is float or (type(value) is int and abs(value) < 2**62) for value in part)


def _normalize(mask) -> tuple[list | dict, set[str]]:
    """Convert a mask to COCO's format; return it with a description of the repair.

    Raises:
        FieldError: if the mask is invalid or ambiguous.
    """
    labels: set[str] = set()
    if mask is None:
        raise FieldError("is missing")
    if isinstance(mask, str):
        raise FieldError("is text, must be polygons or a run-length code {size, counts}")
    if isinstance(mask, dict):
        raise FieldError("is an object without 'counts'")
    if not isinstance(mask, list):
        raise FieldError("is neither a list of polygons nor a run-length code")
    if not mask:
        raise FieldError("is missing")
    if len(mask) == 1 and isinstance(mask[0], dict) and "counts" in mask[0]:
        return mask[0], {"a run-length code in a list taken out of it"}
    if any(isinstance(part, dict) and "counts" in part for part in mask):
        raise FieldError("is a list of several run-length codes")
    if not isinstance(mask[0], list | dict):
        mask = [mask]
        labels.add("one polygon without the outer list read as a list of one")
    elif _is_point(mask[0]) and len(mask) >= 3 and all(_is_point(part) for part in mask):
        mask = [mask]  # one point is not a polygon, so these are the points of one polygon
    polygons = [_flat(part, labels) for part in mask]
    if all(len(part) < 6 for part in polygons):
        raise FieldError("has fewer than three points (4 numbers may be a box or two corners)")
    if any(len(part) < 6 for part in polygons):
        labels.add("parts of fewer than three points removed")
    return [part for part in polygons if len(part) >= 6], labels


def _is_point(part) -> bool:
    if isinstance(part, dict):
        return "x" in part and "y" in part
    return isinstance(part, list) and len(part) == 2 and not any(isinstance(v, list | dict) for v in part)


def _flat(part, labels: set[str]) -> list:
    """Convert a polygon to a list of numbers."""
    if not isinstance(part, list):
        raise FieldError("is a list, but not of polygons")
    if part and isinstance(part[0], list | dict):
        if not all(_is_point(point) for point in part):
            raise FieldError("is nested differently from lists of points")
        labels.add("points as pairs or {x, y} read as points")
        part = list(chain.from_iterable((p["x"], p["y"]) if isinstance(p, dict) else p for p in part))
    if len(part) % 2:
        raise FieldError("has an odd number of coordinates")
    try:
        numbers = [value if type(value) in _NUMBERS else read_number(value) for value in part]
    except FieldError as error:
        raise FieldError(f"has a coordinate that is {error}") from None
    if not _fits(numbers):
        raise FieldError("is far outside of its image")
    if any(isinstance(value, str) for value in part):
        labels.add("coordinates as text read as numbers")
    return numbers


def measure_polygons(values, lengths, owner, start, sizes, masks: Masks, faults) -> None:
    """Compute extents and areas of polygons of at least three points, whose coordinates may be NaN or infinite.

    Args:
        values: coordinates ``x, y, x, y, ...`` of all polygons of a chunk of annotations.
        lengths: number of coordinates of each polygon.
        owner: annotation of each polygon, counted from the start of the chunk.
        start: index of the chunk's first annotation in ``masks``.
        sizes: width and height of the image of each annotation of the chunk (n, 2).
        masks: receives extents and areas.
        faults: receives the annotations with a problem, by problem.
    """
    lengths = lengths // 2
    x, y = values[0::2], values[1::2]
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    following = np.arange(1, len(x) + 1)
    following[last] = first
    with np.errstate(all="ignore"):
        x2, y2 = x[following], y[following]
        outline = np.add.reduceat(np.maximum(np.abs(x2 - x), np.abs(y2 - y)), first)
        area = np.abs(np.add.reduceat(x * y2 - x2 * y, first)) / 2
        ends = [np.minimum.reduceat(x, first), np.minimum.reduceat(y, first)]
        ends += [np.maximum.reduceat(x, first), np.maximum.reduceat(y, first)]
        rows, place = np.unique(owner, return_inverse=True)
        extent = np.array([[np.inf, np.inf, -np.inf, -np.inf]]).repeat(len(rows), 0)
        for column, end in enumerate(ends):
            (np.minimum if column < 2 else np.maximum).at(extent[:, column], place, end)
        areas, outlines = np.bincount(place, area), np.bincount(place, outline)
        side = _FAR * sizes[rows].max(axis=1)
        finite = np.isfinite(extent).all(axis=1)
        far = finite & ((extent[:, :2] < -side[:, None]) | (extent[:, 2:] > side[:, None])).any(axis=1)
        long = finite & ~far & (outlines > _MAX_OUTLINE)
    for fault, which in (
        ("has coordinates that are NaN or infinite", ~finite),
        ("is far outside of its image", far),
        (f"has an outline of more than {_MAX_OUTLINE:.0e} pixels", long),
    ):
        if which.any():
            faults[fault].extend((start + rows[which]).tolist())
    good = start + rows[finite & ~far & ~long]
    masks.extent[good], masks.area[good] = extent[finite & ~far & ~long], areas[finite & ~far & ~long]


def _check_codes(chunk, codes, start, sizes, masks: Masks, faults, repairs) -> None:
    """Check the run-length codes of a chunk of annotations."""
    texts: list[tuple[int, str]] = []
    lists: list[tuple[int, list]] = []
    for row in codes:
        code = chunk[row]["segmentation"]
        try:
            if _read_code(code, sizes[row]):
                repairs["numbers of a run-length code as text or with a decimal point read as integers"] += 1
        except FieldError as error:
            faults[str(error)].append(start + row)
            continue
        (texts if isinstance(code["counts"], str) else lists).append((row, code["counts"]))
    results = []
    if lists:
        lengths = np.array([len(counts) for _, counts in lists], np.int64)
        counts = np.fromiter(chain.from_iterable(counts for _, counts in lists), np.int64, int(lengths.sum()))
        results.append((np.array([row for row, _ in lists]), counts, lengths))
    if texts:
        counts, lengths, good = decode_counts([text for _, text in texts])
        rows = np.array([row for row, _ in texts])
        if not good.all():
            faults["has 'counts' that are not a run-length code"].extend((start + rows[~good]).tolist())
        results.append((rows[good], counts, lengths[good]))
    for rows, counts, lengths in results:
        _measure_codes(rows, counts, lengths, start, sizes, masks, faults)


def _measure_codes(rows, counts, lengths, start, sizes, masks: Masks, faults) -> None:
    if not len(rows):
        return
    width, height = sizes[rows].astype(np.int64).T
    total, least, foreground, extent = measure_runs(counts, lengths, height)
    pixels = width * height
    negative = least < 0
    for fault, which in (
        ("is a run-length code with negative counts", negative),
        ("is a run-length code of fewer pixels than its size", ~negative & (total < pixels)),
        ("is a run-length code of more pixels than its size", ~negative & (total > pixels)),
    ):
        if which.any():
            faults[fault].extend((start + rows[which]).tolist())
    good = ~negative & (total == pixels)
    masks.extent[start + rows[good]], masks.area[start + rows[good]] = extent[good], foreground[good]


def _read_code(code: dict, size: np.ndarray) -> bool:
    """Convert the fields of a run-length code to their types; return whether a repair was needed.

    Raises:
        FieldError: if the size differs from the image's, or counts are neither text nor integers.
    """
    extent, counts, repaired = code.get("size"), code["counts"], False
    if extent is None:
        raise FieldError("is a run-length code without 'size'")
    if not isinstance(extent, list) or len(extent) != 2:
        raise FieldError("is a run-length code whose 'size' is not [height, width]")
    try:
        if set(map(type, extent)) != {int}:
            code["size"] = extent = [read_integer(value) for value in extent]
            repaired = True
        if isinstance(counts, list):
            if not set(map(type, counts)) <= {int} or (counts and max(map(abs, counts)) > 2**31):
                code["counts"] = [read_integer(value, -(2**31), 2**31) for value in counts]
                repaired = True
        elif not isinstance(counts, str):
            raise FieldError("not a list or text")
    except FieldError:
        raise FieldError("is a run-length code with 'size' or 'counts' of another type") from None
    if not np.isfinite(size).all():
        raise FieldError("is a run-length code of an image that does not exist")
    width, height = size.astype(int).tolist()
    if extent != [height, width]:
        if extent == [width, height]:
            raise FieldError("is a run-length code of size [width, height], must be [height, width]")
        raise FieldError("is a run-length code of another size than its image")
    return repaired
