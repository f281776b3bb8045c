"""Depth maps: 16-bit PNG or TIFF files of integers with a scale, or TIFF and NumPy files of meters."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pe_dense.datasets.annotations import read_json
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.map_pairs import DEPTH_WORDS, MASK_WORDS, MapData, find_pairs, has_image_size
from pe_dense.utils.image import ImageError, decode

NAME = "depth maps"
ENDINGS = (".npy", ".png", ".tif", ".tiff")
FILE = "depth.json"
_MILLIMETER = 1e-3
_MOST_MAPS = 5000  # that are read before training


def recognize(root: Path) -> bool:
    """Return whether a folder has images and depth maps."""
    return bool(find_pairs(root, DEPTH_WORDS, ENDINGS, FolderFindings()))


def read(root: Path, findings: FolderFindings, scale: float | None = None) -> MapData:
    """Read the pairs of images and depth maps.

    Depths of 0, and NaN or infinite ones of decimal maps, are unknown. ``depth.json`` may have ``scale``, the meters
    per unit of integer maps, and ``max_depth`` in meters.

    Args:
        root: data folder.
        findings: receives problems, repairs and notes.
        scale: meters per unit of integer maps, instead of the file's.

    Returns:
        the data; ``reader`` has the arguments of :class:`~pe_dense.datasets.label_maps.LoadDepthMap`, and
        ``max_depth``.
    """
    splits = find_pairs(root, DEPTH_WORDS, ENDINGS, findings)
    if not splits:  # NYU's layout
        splits = find_pairs(root, MASK_WORDS, ENDINGS, findings)
    data = MapData(root, NAME, splits, findings=findings)
    if not splits:
        return data
    settings = _settings(root / FILE)
    pairs = [pair for found in splits.values() for pair in found]
    if len(pairs) > _MOST_MAPS:
        findings.note(f"{_MOST_MAPS} of {len(pairs)} maps checked; the others are when they are loaded")
        pairs = [pairs[i * len(pairs) // _MOST_MAPS] for i in range(_MOST_MAPS)]
    kinds: dict[str, list[str]] = {}
    highest, unknown = 0.0, 0
    for image, path in pairs:
        if (values := _read(root, image, path, findings)) is None:
            continue
        integer = values.dtype.kind in "iu"
        kinds.setdefault("integers" if integer else "meters", []).append(path)
        kinds.setdefault("numpy" if path.endswith(".npy") else "images", []).append(path)
        finite = np.isfinite(values)
        unknown += int((~finite).sum())
        known = values[finite]
        if known.size and known.min() < 0:
            findings.error("negative depths", f"{path}: {known.min():g}")
        highest = max(highest, float(known.max()) if known.size else 0.0)
    for one, other in (("integers", "meters"), ("numpy", "images")):
        if one in kinds and other in kinds:
            few = min((one, other), key=lambda kind: len(kinds[kind]))
            for path in kinds[few]:
                findings.error(f"depth maps of {few} among others of {other if few == one else one}", path)
    if unknown:
        findings.note(f"{unknown:,} pixels are NaN or infinite: read as unknown depth")
    factor = _scale(scale, settings, "integers" in kinds, findings)
    highest *= factor
    if kinds and not findings.errors and not highest > 0:
        findings.error("no map has a known depth", f"{len(pairs)} maps")
    data.reader = dict(
        depth_rescale_factor=factor,
        decode_backend="numpy" if "numpy" in kinds else "cv2",
        nan_is_unknown=unknown > 0 or len(pairs) == _MOST_MAPS,
        max_depth=float(settings.get("max_depth") or math.ceil(highest)),
    )
    unit = f"{factor:g} m per unit" if "integers" in kinds else "meters"
    data.format = f"{NAME} ({unit}, up to {highest:.2f} m)"
    return data


def _settings(path: Path) -> dict:
    if not path.is_file():
        return {}
    content = read_json(path)
    known = ("scale", "max_depth")
    good = isinstance(content, dict) and set(content) <= set(known)
    if not good or not all(type(value) in (int, float) and 0 < value < 1e6 for value in content.values()):
        raise DataError(f"{path} must be an object with 'scale' (meters per unit) and 'max_depth' (meters), above 0")
    return content


def _scale(scale: float | None, settings: dict, integer: bool, findings: FolderFindings) -> float:
    if not integer:
        if scale not in (None, 1):
            findings.error("maps of decimal numbers are in meters and have no scale", f"scale {scale:g}")
        return 1.0
    if scale is None and "scale" not in settings:
        findings.note(f"integer depth maps read as millimeters; another unit: --depth-scale METERS or {FILE}")
    return float(scale or settings.get("scale") or _MILLIMETER)


def _read(root: Path, image: str, path: str, findings: FolderFindings) -> np.ndarray | None:
    try:
        if path.endswith(".npy"):
            values = np.load(root / path, allow_pickle=False)
            values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        else:
            values = np.array(decode(root / path, ignore_orientation=True))
    except (ImageError, OSError, ValueError, EOFError):
        findings.error("depth maps that cannot be read", path)
        return None
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        findings.error("depth maps that are not of one channel (colored pictures?)", f"{path}: {values.shape}")
        return None
    if values.dtype == np.uint8:
        findings.error("depth maps of 8 bits, must have 16 bits or be decimal", path)
        return None
    return values if has_image_size(root, image, path, values.shape, NAME, findings) else None
