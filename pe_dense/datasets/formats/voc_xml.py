"""Pascal VOC format: an XML file of boxes for each image.

VOC's own layout is ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/{train,val,test}.txt``; LabelImg and
exports write XML files beside the images, in folders of the splits or not. Coordinates of VOC count from 1 and include
the last pixel. Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from xml.etree import ElementTree

from pe_dense.datasets.formats.class_names import find_table
from pe_dense.datasets.formats.files import SPLITS, is_image, join, list_files, stem
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.image_sizes import ImageSizes
from pe_dense.datasets.formats.objects import ObjectSplit, make_object, new_content
from pe_dense.datasets.formats.splits import folder_splits, listed_splits, split_lists
from pe_dense.utils.image import ImageError

NAME = "Pascal VOC"
_MAX_FILE = 1 << 24  # bytes
_FIELDS = ("xmin", "ymin", "xmax", "ymax")


def recognize(root: Path, files: dict[str, list[str]]) -> bool:
    """Return whether a folder has XML files with ``<annotation>``."""
    paths = [root / folder / name for folder, names in files.items() for name in names if name.lower().endswith(".xml")]
    return any(b"<annotation" in path.open("rb").read(4096) for path in paths[:5])


def read(root: Path, findings: FolderFindings, wanted: tuple[str, ...] = SPLITS) -> dict[str, ObjectSplit]:
    """Read a data set in Pascal VOC's format.

    Objects that are marked ``difficult`` become crowds, which are ignored in training and evaluation. Repaired are:
    missing sizes of images, boxes with swapped corners or beyond the image, space around names.

    Args:
        root: data folder.
        findings: receives problems, repairs and notes.
        wanted: splits that will be used; all files are read, since the classes are those of all of them.

    Returns:
        the splits by name; images without a split are in 'all'.
    """
    files = list_files(root)
    images = {}  # by folder and stem
    for folder, names in files.items():
        for name in filter(is_image, names):
            if "SegmentationClass" in folder or "SegmentationObject" in folder:
                continue
            if (key := (folder, stem(name))) in images:
                findings.error("images of the same name with different endings", f"{join(folder, name)}, {images[key]}")
            images[key] = join(folder, name)
    parsed, used = [], set()
    for folder, names in files.items():
        for name in names:
            if not name.lower().endswith(".xml"):
                continue
            place = join(folder, name)
            if (tree := _parse(root / place, place, findings)) is None:
                continue
            image = _find_image(folder, stem(name), images)
            if image is None:
                findings.error("XML files without an image", place)
                continue
            used.add(image)
            parsed.append((place, image, tree))
    classes = _classes(root, parsed, findings)
    if unused := sorted(set(images.values()) - used):
        findings.note(f"{len(unused)} of {len(images)} images have no XML file and are left out, such as {unused[0]}")
    sizes = ImageSizes(root)
    entries = [_entry(sizes, place, image, tree, findings) for place, image, tree in parsed]
    sizes.save()
    boxes = [box for entry in entries for _, box, _ in entry["objects"]]
    first = 0 if any(min(box[:2]) < 1 for box in boxes) else 1
    if boxes and not first:
        findings.note("boxes contain coordinates of 0: read as counted from 0, not from 1 as in VOC")
    ids = {name: number for number, name in enumerate(classes, start=1)}
    splits: dict[str, ObjectSplit] = {}
    by_split = _splits(root, files, [entry["image"] for entry in entries], findings)
    for entry in entries:
        split = by_split.get(entry["image"])
        if split is None:
            continue
        content = splits.setdefault(split, ObjectSplit(new_content([], classes), "")).content
        width, height = entry["size"]
        image = dict(id=len(content["images"]) + 1, file_name=entry["image"], width=width, height=height)
        content["images"].append(image)
        for name, (left, top, right, bottom), difficult in entry["objects"]:
            box = [left - first, top - first, right - left + first, bottom - top + first]
            if box[2] <= 0 or box[3] <= 0:
                findings.repair("boxes of no width or height left out", entry["place"])
                continue
            if name not in ids:  # reported
                continue
            number = len(content["annotations"]) + 1
            content["annotations"].append(make_object(number, image["id"], ids[name], box, crowd=difficult))
    return {split: splits[split] for split in (*SPLITS, "all") if split in splits}


def _parse(path: Path, place: str, findings: FolderFindings) -> ElementTree.Element | None:
    content = path.read_bytes()
    if len(content) > _MAX_FILE or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        findings.error("XML files that are too large or define entities", place)
        return None
    try:
        tree = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        findings.error("files that are not valid XML", f"{place} line {line} column {column}")
        return None
    if tree.tag != "annotation":
        findings.repair("XML files without <annotation> ignored", place)
        return None
    return tree


def _find_image(folder: str, name: str, images: dict[tuple[str, str], str]) -> str | None:
    """Find an image by the name of its XML file: beside it, or in a folder of images beside its folder."""
    parts = folder.split("/")
    places = [folder]
    for place, part in enumerate(parts):
        if part.lower() in ("annotations", "annotation", "labels", "xml", "xmls"):
            others = ("JPEGImages", "images", "Images", "imgs", "img", "")
            places += ["/".join(filter(None, [*parts[:place], other, *parts[place + 1 :]])) for other in others]
    return next((images[place, name] for place in places if (place, name) in images), None)


def _text(element: ElementTree.Element, path: str) -> str | None:
    value = element.findtext(path)
    return value.strip() if value is not None and value.strip() else None


def _classes(root: Path, parsed: list, findings: FolderFindings) -> list[str]:
    names: dict[str, str] = {}  # with the first file
    for place, _, tree in parsed:
        for number, item in enumerate(tree.iter("object"), start=1):
            raw = item.findtext("name") or ""
            if not raw.strip():
                findings.error("objects without a name", f"{place} object {number}")
            else:
                if raw != raw.strip():
                    findings.repair("space around class names removed", place)
                names.setdefault(raw.strip(), place)
    table = find_table(root, findings)
    if table is None:
        known = sorted(names)
        lower = [name.lower() for name in known]
        if alike := [name for name in known if lower.count(name.lower()) > 1]:
            findings.note(f"class names that differ in case only are different classes: {', '.join(alike)}")
        return known
    for name, place in names.items():
        if name not in table.names:
            close = get_close_matches(name, table.names, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            findings.error(f"class {name!r} is not in {table.path.name}{hint}", place)
    return table.names


def _entry(sizes: ImageSizes, place: str, image: str, tree: ElementTree.Element, findings: FolderFindings) -> dict:
    """Read an XML file: its image, its size and its objects as (name, (left, top, right, bottom), difficult)."""
    try:
        size = sizes.read(image)
    except (ImageError, FileNotFoundError):
        findings.error("images that cannot be read", image)
        return dict(place=place, image=image, size=(1, 1), objects=[])
    written = tuple(_number(_text(tree, f"size/{side}")) or 0 for side in ("width", "height"))
    if min(written) <= 0:
        findings.repair("missing image sizes read from the images", place)
    elif written != size:
        if written == size[::-1]:
            what = "width and height swapped (was it annotated without its EXIF orientation?)"
        else:
            what = "another size"
        sides = f"{written[0]:g} x {written[1]:g}"
        findings.error(
            f"images have {what} than their XML file says", f"{place}: {sides}, {image}: {size[0]} x {size[1]}"
        )
    objects = []
    for number, item in enumerate(tree.iter("object"), start=1):
        name, where = _text(item, "name"), f"{place} object {number}"
        box = [_number(_text(item, f"bndbox/{key}")) for key in _FIELDS]
        if None in box:
            findings.error(f"objects without a box of numbers ({', '.join(_FIELDS)})", where)
            continue
        if name is None:
            continue
        if (box := _checked(box, size, where, findings)) is not None:
            objects.append((name, box, _text(item, "difficult") == "1"))
    return dict(place=place, image=image, size=size, objects=objects)


def _number(text: str | None) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _checked(box: list[float], size: tuple[int, int], where: str, findings: FolderFindings) -> list[float] | None:
    left, top, right, bottom = box
    if left > right or top > bottom:
        findings.repair("swapped corners of boxes", where)
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    if right <= 1 and bottom <= 1 and min(size) > 4:
        findings.error("boxes that are fractions of the image's size, must be in pixels", where)
        return None
    if left >= size[0] + 1 or top >= size[1] + 1 or right < 0 or bottom < 0:
        findings.error("boxes outside of their image", f"{where}: {left:g} {top:g} {right:g} {bottom:g}")
        return None
    if right > size[0] or bottom > size[1] or left < 0 or top < 0:
        findings.repair("boxes that reach beyond their image clipped", where)
    return [max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])]


def _splits(root: Path, files: dict, names: list[str], findings: FolderFindings) -> dict[str, str]:
    """Return the split of each image, by lists in ``ImageSets/Main`` or by folders; 'all' without any."""
    folders = [folder for ending in ("ImageSets/Main", "ImageSets") for folder in files if folder.endswith(ending)]
    if lists := split_lists(root, files, folders):
        return listed_splits(root, lists, names, findings, "an XML file")
    return folder_splits(names, findings)
