"""Decode masks, and check COCO's run-length encodings (RLE) in NumPy, since pycocotools does not check them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api

_MAX_CHARACTERS = 7  # characters per number: 35 bits, more than the 31 of an image


def decode_counts(codes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode the compressed counts of N masks in one vectorized pass.

    A number is a sequence of 6-bit characters, offset by '0': 5 bits of its value, lowest first, and a bit that is set
    if more follow; the highest bit of the last character is the sign. From the fourth number on, each is the difference
    to the one before the last (``rleToString`` in pycocotools' ``maskApi.c``).

    Args:
        codes: compressed counts of N masks.

    Returns:
        counts of all masks, concatenated, int64; number of counts of each mask (N); whether each code is well-formed
        (N, bool). A malformed code has no counts.
    """
    good = np.array([_is_code(code) for code in codes], bool)
    joined = "".join(code for code, fine in zip(codes, good, strict=True) if fine)
    sizes = np.zeros(len(codes), np.int64)
    if not joined:
        return np.zeros(0, np.int64), sizes, good
    digits = np.frombuffer(joined.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    lengths = np.array([len(code) for code in codes], np.int64) * good
    ends = np.cumsum(lengths)
    number = np.cumsum(last) - last  # index of the number of each character
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(digits)) - starts[number]
    # `_is_code` ensures that the last character of a code ends a number.
    sizes[good] = np.add.reduceat(last, (ends - lengths)[good]) if good.any() else 0
    too_long = place >= _MAX_CHARACTERS
    if too_long.any():
        owner = np.repeat(np.arange(len(codes)), lengths)
        good[np.unique(owner[too_long])] = False
        return decode_counts_of(codes, good)
    values = np.add.reduceat((digits & 31) << (5 * place), starts)
    negative = (digits[last] & 16) > 0
    values -= negative.astype(np.int64) << (5 * (place[last] + 1))
    return _undo_differences(values, sizes), sizes, good


def decode_counts_of(codes: Sequence[str], good: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode as :func:`decode_counts` where some codes are malformed."""
    counts, sizes, fine = decode_counts([code if keep else "" for code, keep in zip(codes, good, strict=True)])
    return counts, sizes, fine & good


def _is_code(code: str) -> bool:
    """Return whether a text only has valid characters and ends with the last character of a number."""
    return bool(code) and code.isascii() and min(code) >= "0" and max(code) <= "o" and ord(code[-1]) - 48 < 32


def _undo_differences(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Undo the differences: from the fourth number of each mask on, add the one before the last."""
    sizes = sizes[sizes > 0]
    first = np.cumsum(sizes) - sizes
    index = np.arange(len(values)) - np.repeat(first, sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    counts = values.copy()
    for chain in ((index % 2 == 1), (index % 2 == 0) & (index > 0)):
        rows = np.flatnonzero(chain)
        if not len(rows):
            continue
        sums = np.cumsum(values[rows])
        new = np.concatenate([[True], owner[rows][1:] != owner[rows][:-1]])
        before = np.concatenate([[0], sums[:-1]])[new]
        counts[rows] = sums - np.repeat(before, np.diff(np.append(np.flatnonzero(new), len(rows))))
    return counts


def measure_runs(
    counts: np.ndarray, sizes: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measure N masks given as column-wise runs, of which the first is background.

    Args:
        counts: counts of all masks, concatenated.
        sizes: number of counts of each mask (N).
        heights: heights of the images (N).

    Returns:
        number of pixels of all runs (N), smallest count (N), number of foreground pixels (N), and left, top, right and
        bottom of the foreground (N, 4), NaN if there is none. Masks without counts have 0 pixels.
    """
    total = np.zeros(len(sizes), np.int64)
    least = np.zeros(len(sizes), np.int64)
    foreground = np.zeros(len(sizes), np.int64)
    extent = np.full((len(sizes), 4), np.nan)
    some = np.flatnonzero(sizes)
    if not len(some):
        return total, least, foreground, extent
    first = np.cumsum(sizes[some]) - sizes[some]
    total[some] = np.add.reduceat(counts, first)
    least[some] = np.minimum.reduceat(counts, first)
    owner = np.repeat(some, sizes[some])
    index = np.arange(len(counts)) - np.repeat(first, sizes[some])
    ends = np.cumsum(counts) - np.repeat(np.cumsum(total[some]) - total[some], sizes[some])
    runs = (index % 2 == 1) & (counts > 0)
    owner, start, end, height = owner[runs], (ends - counts)[runs], ends[runs] - 1, heights[owner[runs]]
    np.add.at(foreground, owner, counts[runs])
    if len(owner):
        extent[np.unique(owner)] = [np.inf, np.inf, -np.inf, -np.inf]
        spans = start // height != end // height  # a run over several columns spans the full height
        np.minimum.at(extent[:, 0], owner, start // height)
        np.minimum.at(extent[:, 1], owner, np.where(spans, 0, start % height))
        np.maximum.at(extent[:, 2], owner, end // height + 1)
        np.maximum.at(extent[:, 3], owner, np.where(spans, height, end % height + 1))
    return total, least, foreground, extent


def decode_mask(mask: list | dict, size: tuple[int, int]) -> np.ndarray:
    """Draw a checked mask in COCO's format, polygons or a run-length code.

    Args:
        mask: value of ``segmentation``.
        size: height and width of the image.

    Returns:
        (H, W) bool.
    """
    if isinstance(mask, list):
        mask = mask_api.merge(mask_api.frPyObjects(mask, *size))
    elif isinstance(mask["counts"], list):
        mask = mask_api.frPyObjects(mask, *size)
    return mask_api.decode(mask).astype(bool)
