"""labelme's format: a JSON file of shapes beside each image.

Source: https://github.com/wkentaro/labelme; the output of ``tools/predict.py --format labelme`` is in this format, too.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from pe_dense.datasets.annotations import AnnotationError, read_json
from pe_dense.datasets.formats.class_names import find_table
from pe_dense.datasets.formats.files import SPLITS, is_image, join, list_files, stem
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.image_sizes import ImageSizes
from pe_dense.datasets.formats.objects import ObjectSplit, make_object, new_content
from pe_dense.datasets.formats.splits import folder_splits
from pe_dense.utils.image import ImageError

NAME = "labelme"
_KEY = b'"shapes"'
_CORNERS = 48  # of the polygon of a circle


def recognize(root: Path, files: dict[str, list[str]]) -> bool:
    """Return whether a folder has JSON files with ``shapes`` beside images."""
    for folder, names in files.items():
        images = {stem(name) for name in names if is_image(name)}
        for name in [name for name in names if name.lower().endswith(".json") and stem(name) in images][:5]:
            if _KEY in (root / folder / name).read_bytes()[: 1 << 20]:
                return True
    return False


def read(root: Path, findings: FolderFindings, wanted: tuple[str, ...] = SPLITS) -> dict[str, ObjectSplit]:
    """Read a data set in labelme's format.

    Polygons, rectangles and circles are read; shapes of one class that share a group are one object. Images without a
    JSON file are left out, JSON files without shapes are of images without objects.

    Args:
        root: data folder.
        findings: receives problems, repairs and notes.
        wanted: splits that will be used; all files are read, since the classes are those of all of them.

    Returns:
        the splits by name; images without a split are in 'all'.
    """
    entries, without = [], []
    sizes = ImageSizes(root)
    for folder, names in list_files(root).items():
        images = {stem(name): name for name in names if is_image(name)}
        jsons = {stem(name): name for name in names if name.lower().endswith(".json")}
        for base, name in jsons.items():
            place = join(folder, name)
            if (content := _content(root / place, place, findings)) is None:
                continue
            named = re.split(r"[\\/]", str(content.get("imagePath") or ""))[-1]
            image = named if named in names else images.get(base)
            if image is None:
                findings.error("JSON files without an image", f"{place}: {named}")
                continue
            images.pop(stem(image), None)
            if (entry := _entry(sizes, place, join(folder, image), content, findings)) is not None:
                entries.append(entry)
        without += [join(folder, name) for name in images.values()]
    sizes.save()
    if without:
        findings.note(f"{len(without)} images have no JSON file and are left out, such as {without[0]}")
    classes = _classes(root, entries, findings)
    ids = {name: number for number, name in enumerate(classes, start=1)}
    splits: dict[str, ObjectSplit] = {}
    by_split = folder_splits([entry["image"] for entry in entries], findings)
    for entry in entries:
        if (split := by_split.get(entry["image"])) is None:
            continue
        content = splits.setdefault(split, ObjectSplit(new_content([], classes), "")).content
        width, height = entry["size"]
        image = dict(id=len(content["images"]) + 1, file_name=entry["image"], width=width, height=height)
        content["images"].append(image)
        for name, box, polygons in entry["objects"]:
            if name in ids:
                number = len(content["annotations"]) + 1
                content["annotations"].append(make_object(number, image["id"], ids[name], box, polygons=polygons))
    return {split: splits[split] for split in (*SPLITS, "all") if split in splits}


def _content(path: Path, place: str, findings: FolderFindings) -> dict | None:
    """Read a JSON file; None if it is not one of labelme's."""
    try:
        content = read_json(path)
    except AnnotationError:
        findings.error("files that are not valid JSON", place)
        return None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return None
    return content


def _entry(sizes: ImageSizes, place: str, image: str, content: dict, findings: FolderFindings) -> dict | None:
    try:
        size = sizes.read(image)
    except (ImageError, FileNotFoundError):
        findings.error("images that cannot be read", image)
        return None
    written = (content.get("imageWidth"), content.get("imageHeight"))
    if None not in written and written != size:
        sides = f"{place}: {written[0]} x {written[1]}, {image}: {size[0]} x {size[1]}"
        findings.error("images have another size than their JSON file says", sides)
    objects: dict[tuple, tuple] = {}
    for number, shape in enumerate(content["shapes"], start=1):
        where = f"{place} shape {number}"
        if not isinstance(shape, dict) or not str(shape.get("label") or "").strip():
            findings.error("shapes without a label", where)
            continue
        if (found := _shape(shape, size, where, findings)) is None:
            continue
        name, (box, polygon) = str(shape["label"]).strip(), found
        group = shape.get("group_id")
        key = (name, group) if group is not None and polygon else (name, None, number)
        parts = objects[key][2] if key in objects else []
        objects[key] = (name, box, [*parts, polygon] if polygon else None)
    return dict(place=place, image=image, size=size, objects=list(objects.values()))


def _shape(shape: dict, size: tuple[int, int], where: str, findings: FolderFindings):
    """Return a shape's box (left, top, width, height) and polygon, one of which is None."""
    kind = shape.get("shape_type") or "polygon"
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError):
        points = []
    if not points or not all(math.isfinite(value) for point in points for value in point):
        findings.error("shapes whose points are not pairs of numbers", where)
        return None
    if kind in ("point", "points", "line", "linestrip"):
        findings.repair("points and lines ignored", where)
        return None
    if kind == "circle" and len(points) == 2:
        (x, y), (u, v) = points
        radius = math.hypot(u - x, v - y)
        angles = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        points = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    elif kind not in ("polygon", "rectangle"):
        findings.error("shapes of another type than polygon, rectangle and circle", f"{where}: {kind}")
        return None
    elif len(points) < (3 if kind == "polygon" else 2):
        findings.error("polygons of fewer than three points, or rectangles without two", where)
        return None
    if any(x < -1 or y < -1 or x > size[0] + 1 or y > size[1] + 1 for x, y in points):
        findings.repair("points outside of the image moved to its border", where)
    points = [(min(max(x, 0.0), size[0]), min(max(y, 0.0), size[1])) for x, y in points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if min(xs) == max(xs) or min(ys) == max(ys):
        findings.repair("shapes of no width or height left out", where)
        return None
    if kind == "rectangle":
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], None
    return None, [value for point in points for value in point]


def _classes(root: Path, entries: list[dict], findings: FolderFindings) -> list[str]:
    names = {name: entry["place"] for entry in reversed(entries) for name, _, _ in entry["objects"]}
    table = find_table(root, findings)
    if table is None:
        return sorted(names)
    listed = [name for name in table.names if name not in ("__ignore__", "_background_")]
    for name, place in names.items():
        if name not in listed:
            findings.error(f"class {name!r} is not in {table.path.name}", place)
    return listed
