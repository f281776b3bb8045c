"""Semantic masks: an image of labels, palette colors or RGB colors for each image, with a table of classes.

Indices, palette PNG files (VOC), gray values with a table, RGB colors with a table (CamVid, CVAT) and binary masks of 0
and 255 are read. 255 means no class, unless it is a class of the table.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from pe_dense.datasets.davis import voc_color
from pe_dense.datasets.formats.class_names import FILES, ClassTable, find_table
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.map_pairs import MASK_WORDS, MapData, find_pairs, has_image_size
from pe_dense.utils.image import ImageError, decode

NAME = "semantic masks"
ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg", ".webp")
IGNORED = 255
_VOID = frozenset(("void", "unlabeled", "unlabelled", "ignore", "ignored", "ignore_index"))
_MOST_CLASSES = 255
_MOST_MASKS = 5000  # that are read before training; the others when they are loaded
_MANY_VALUES = 64  # different values with gaps, without a table


def recognize(root: Path) -> bool:
    """Return whether a folder has images and masks."""
    return bool(find_pairs(root, MASK_WORDS, ENDINGS, FolderFindings()))


def read(root: Path, findings: FolderFindings) -> MapData:
    """Read the pairs of images and masks, and find out what the values of the masks mean.

    Args:
        root: data folder.
        findings: receives problems, repairs and notes.

    Returns:
        the data; ``reader`` has the arguments of :class:`~pe_dense.datasets.label_maps.LoadLabelMap`.
    """
    splits = find_pairs(root, MASK_WORDS, ENDINGS, findings)
    data = MapData(root, NAME, splits, findings=findings)
    pairs = [pair for found in splits.values() for pair in found]
    table = find_table(root, findings, ("", *dict.fromkeys(str(Path(path).parent) for _, path in pairs)))
    if len(pairs) > _MOST_MASKS:
        findings.note(f"{_MOST_MASKS} of {len(pairs)} masks checked; the others are when they are loaded")
        pairs = [pairs[i * len(pairs) // _MOST_MASKS] for i in range(_MOST_MASKS)]
    seen: dict[str, Counter] = {}
    kinds: dict[str, list[str]] = {}
    stored_as_rgb = False
    for image, path in pairs:
        if path.lower().endswith((".jpg", ".jpeg")):
            findings.error("masks stored as JPEG, whose compression changes labels: use PNG", path)
            continue
        if (values := _read(root, image, path, findings)) is None:
            continue
        is_gray = values.ndim == 2 or bool((values == values[..., :1]).all())
        kinds.setdefault("gray" if is_gray else "color", []).append(path)
        stored_as_rgb |= values.ndim == 3
        seen[path] = _count(values[..., 0] if is_gray and values.ndim == 3 else values)
    if "color" in kinds and table is not None and table.colors is not None:
        for path in kinds.pop("gray", []):  # colored masks in which only gray classes occur
            kinds["color"].append(path)
            seen[path] = Counter({value * 0x10101: count for value, count in seen[path].items()})
    if len(kinds) > 1:
        few = min(kinds, key=lambda kind: len(kinds[kind]))
        for path in kinds[few]:
            findings.error(f"masks of {few} among masks of another kind", path)
    if findings.errors or not seen:
        return data
    labels = _color_labels(table, seen, findings) if "color" in kinds else _gray_labels(table, seen, findings)
    if labels is None:
        return data
    names, mapping = labels
    _check_values(seen, mapping, "color" in kinds, findings)
    data.classes = tuple(names)
    data.palette = _palette(names, mapping, "color" in kinds)
    data.reader = dict(num_classes=len(names))
    if "color" in kinds:
        data.reader["colors"] = {_hex(value): label for value, label in mapping.items()}
    elif stored_as_rgb:
        data.reader["colors"] = {_hex(value * 0x10101): label for value, label in mapping.items() if 0 <= value < 256}
    elif any(value != label for value, label in mapping.items()):
        data.reader["value_map"] = dict(mapping)
    data.present = {image: _by_label(seen.get(path, {}), mapping) for image, path in pairs}
    if unused := [name for label, name in enumerate(names) if not any(label in here for here in data.present.values())]:
        findings.note(f"{len(unused)} of {len(names)} classes occur in no mask: {', '.join(unused[:8])}")
    return data


def _read(root: Path, image: str, path: str, findings: FolderFindings) -> np.ndarray | None:
    """Read a mask, (H, W) of values or (H, W, 3) of colors."""
    try:
        decoded = decode(root / path, ignore_orientation=True)
    except (ImageError, FileNotFoundError):
        findings.error("masks that cannot be read", path)
        return None
    values = np.array(decoded)
    if values.ndim == 3:
        values = values[..., :3] if values.shape[2] >= 3 else values[..., 0]  # without transparency
    if values.dtype.kind == "f":
        findings.error("masks of decimal numbers", path)
        return None
    return values if has_image_size(root, image, path, values.shape, "masks", findings) else None


def _count(values: np.ndarray) -> Counter:
    """Count values; colors as R * 65536 + G * 256 + B."""
    if values.ndim == 3:
        values = values.astype(np.int64) @ np.array([65536, 256, 1])
    numbers, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def _number(names: list[str], keys: list[int]) -> tuple[list[str], dict[int, int]]:
    """Give labels to the classes of a table, without those that stand for no class."""
    kept = [name for name in names if name.lower() not in _VOID]
    return kept, {key: kept.index(name) if name in kept else IGNORED for name, key in zip(names, keys, strict=True)}


def _color_labels(table: ClassTable | None, seen: dict, findings: FolderFindings):
    total = sum(seen.values(), Counter())
    if table is None or table.colors is None:
        colors = ", ".join(_hex(value) for value, _ in total.most_common(8))
        findings.error(
            "colors without a table: write classes.csv with the lines 'name,R,G,B'",
            f"{len(total)} colors in {len(seen)} masks: {colors}",
        )
        return None
    return _number(table.names, [red * 65536 + green * 256 + blue for red, green, blue in table.colors])


def _gray_labels(table: ClassTable | None, seen: dict, findings: FolderFindings):
    total = sum(seen.values(), Counter())
    values = sorted(total)
    if table is not None and table.values is None and table.colors is not None and max(total) >= len(table.names):
        by_color = [red * 65536 + green * 256 + blue for red, green, blue in table.colors]
        if all(value * 0x10101 in by_color for value in values):  # masks whose only colors are grays
            return _number(table.names, [key % 256 if key % 0x10101 == 0 else -1 - key for key in by_color])
    if table is not None and table.values is not None:
        return _with_void(*_number(table.names, table.values))
    if set(values) <= {0, 255} and 255 in values and (table is None or len(table.names) == 2):
        findings.note("masks of 0 and 255: 255 is the second class")
        return (table.names if table else ["background", "foreground"]), {0: 0, 255: 1}
    labels = [value for value in values if value != IGNORED]
    if table is not None:
        count = len(table.names)
        if labels and max(labels) == count and count < IGNORED:
            what = (
                "values that count from 1: 0 read as pixels without a class"
                if 0 in labels
                else "values that count from 1"
            )
            findings.repair(what, f"{len(seen)} masks")
            names, mapping = _number(table.names, list(range(1, count + 1)))
            return _with_void(names, {0: IGNORED, **mapping})
        return _with_void(*_number(table.names, list(range(count))))
    if not labels or labels == list(range(len(labels))):
        names = [f"class_{label}" for label in range(max(len(labels), 1))]
        findings.note(f"no table of classes ({', '.join(FILES[:3])}): named {', '.join(names[:3])}")
        return _with_void(names, {label: label for label in labels})
    if len(labels) > _MANY_VALUES:
        findings.error(
            "values without a table of classes, too many to be labels (resized or compressed masks?)",
            f"{len(labels)} values from {labels[0]} to {labels[-1]} in {len(seen)} masks",
        )
        return None
    findings.note(f"values with gaps and no table of classes: {', '.join(map(str, labels[:8]))} are the classes")
    return _with_void([f"value_{value}" for value in labels], {value: label for label, value in enumerate(labels)})


def _with_void(names: list[str], mapping: dict[int, int]) -> tuple[list[str], dict[int, int]]:
    return names, {IGNORED: IGNORED, **mapping}


def _check_values(seen: dict, mapping: dict[int, int], color: bool, findings: FolderFindings) -> None:
    if len({label for label in mapping.values() if label != IGNORED}) > _MOST_CLASSES:
        findings.error(f"more than {_MOST_CLASSES} classes", f"{len(mapping)} classes")
    allowed = sorted(value for value in mapping if value >= 0)
    shown = "the table of classes" if color else f"{allowed[0]}..{allowed[-1]}" if len(allowed) > 8 else str(allowed)
    for path, values in seen.items():
        for value in [value for value in values if value not in mapping]:
            what = f"colors outside of {shown}" if color else f"values outside of {shown}"
            findings.error(what, f"{path}: {_hex(value) if color else value}, {values[value]} pixels")


def _hex(value: int) -> str:
    return f"#{value:06x}"


def _by_label(values: dict[int, int], mapping: dict[int, int]) -> dict[int, int]:
    """Return the number of pixels of each label."""
    found: Counter = Counter()
    for value, count in values.items():
        if (label := mapping.get(value, IGNORED)) != IGNORED:
            found[label] += count
    return dict(found)


def _palette(names: list[str], mapping: dict[int, int], color: bool) -> list[tuple[int, int, int]]:
    """Return a color for each class: that of the masks, or one of VOC's series."""
    if color:
        by_label = {label: value for value, label in mapping.items()}
        return [tuple(by_label[label].to_bytes(3, "big")) for label in range(len(names))]
    return [voc_color(label) for label in range(len(names))]
