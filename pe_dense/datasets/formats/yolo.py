"""YOLO format: a text file of normalized boxes or polygons for each image, with ``data.yaml`` or folders only.

A line is ``class x y width height`` with the center of the box, or ``class x y x y x y ...`` with a polygon; all
coordinates are fractions of the image's size. Source: https://docs.ultralytics.com/datasets/
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from pe_dense.datasets.formats.class_names import ClassTable, check_table, find_table, names_of
from pe_dense.datasets.formats.files import (
    SPLIT_NAMES,
    SPLITS,
    find_foreign_path,
    is_foreign,
    is_image,
    join,
    list_files,
    read_text,
    relative_name,
    split_named,
    stem,
    text_lines,
)
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.image_sizes import ImageSizes
from pe_dense.datasets.formats.objects import ObjectSplit, make_object, new_content, sized_images

NAME = "YOLO"
_NOT_LABELS = ("classes", "obj", "readme", "labels", "predefined_classes", "class_names", "requirements", "license")
_TOLERANCE = 0.05  # of the image's side, by which coordinates may lie outside; they are clipped
_MANY = 0.3  # fraction of boxes that leave their image if corners are read as center and size


def recognize(root: Path, files: dict[str, list[str]]) -> bool:
    """Return whether a folder has ``data.yaml``, or text files of numbers beside images.

    Args:
        root: the folder.
        files: its files, see :func:`~pe_dense.datasets.formats.files.list_files`.
    """
    if _yaml_file(root, files) is not None:
        return True
    for folder, names in files.items():
        texts = [name for name in names if _is_label(name)]
        images = [name for name in files.get(_images_of(folder), names) if is_image(name)]
        stems = {stem(name) for name in images}
        for name in [name for name in texts if stem(name) in stems][:5]:
            lines = [line for _, line in text_lines(read_text(root / folder / name))]
            if lines and _numbers(lines[0]) is not None:
                return True
    return False


def _is_label(name: str) -> bool:
    return name.endswith(".txt") and not stem(name).lower().startswith(_NOT_LABELS) and split_named(stem(name)) is None


def _images_of(folder: str) -> str:
    """Return the folder of the images of a folder of labels: the last ``labels`` becomes ``images``."""
    return _swap(folder, "labels", "images")


def _swap(folder: str, old: str, new: str) -> str:
    parts = folder.split("/")
    for place in range(len(parts) - 1, -1, -1):
        if parts[place].lower() == old:
            return "/".join([*parts[:place], new, *parts[place + 1 :]])
    return folder


def _yaml_file(root: Path, files: dict[str, list[str]]) -> Path | None:
    """Find the YAML file with ``names`` in the root, or one folder below."""
    found = []
    for folder in [folder for folder in files if folder.count("/") == 0]:
        for name in files[folder]:
            if name.lower().endswith((".yaml", ".yml")):
                content = (root / folder / name).read_bytes()
                if b"names" in content and len(content) < 1 << 22:
                    found.append(root / folder / name)
    usual = [path for path in found if path.stem in ("data", "dataset")]
    return (usual or found or [None])[0]


def read(root: Path, findings: FolderFindings, wanted: tuple[str, ...] = SPLITS) -> dict[str, ObjectSplit]:
    """Read a data set in YOLO format.

    Repaired are Windows and foreign paths in ``data.yaml``, byte order marks, class numbers such as ``0.0``, commas
    between numbers, confidences after boxes, coordinates slightly outside of the image and lines that occur twice.
    Images without a label file are images without objects.

    Args:
        root: data folder.
        findings: receives problems, repairs and notes.
        wanted: splits that will be used; training images are not read where there are others.

    Returns:
        the splits by name; images without a split are in 'all'.

    Raises:
        DataError: if class names or lists of images are not valid.
    """
    files = list_files(root)
    path = _yaml_file(root, files)
    content = _read_yaml(path, findings, root) if path else {}
    table = _class_table(root, content, path, findings)
    sources = _images_by_split(root, files, content, path, findings)
    if table is not None and "train" not in wanted and {"val", "test"} & set(sources):
        sources.pop("train", None)
    if not any(sources.values()):
        raise DataError(f"{root} ({NAME}) has no images")
    labels, sizes = _Labels(root, files, table, findings), ImageSizes(root)
    splits = {}
    for split, names in sources.items():
        sized = sized_images(sizes, names, findings)
        splits[split] = ObjectSplit(new_content(sized, table.names if table else ()), "")
        splits[split].content["annotations"] = [item for image in sized for item in labels.read(image)]
    sizes.save()
    labels.finish(sum(len(split.content["images"]) for split in splits.values()))
    if table is None:
        names = [f"class_{number}" for number in range(labels.highest + 1)]
        findings.note(f"no class names (data.yaml or classes.txt): named {', '.join(names[:3])}, ...")
        for split in splits.values():
            split.content["categories"] = new_content([], names)["categories"]
    return splits


def _read_yaml(path: Path, findings: FolderFindings, root: Path) -> dict:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, findings, root))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{path} has no 'names' of classes")
    return content


def _class_table(root: Path, content: dict, path: Path | None, findings: FolderFindings) -> ClassTable | None:
    if not content:
        return find_table(root, findings)
    table = check_table(names_of(content["names"], path), findings, path.name)
    if content.get("nc") not in (None, len(table.names)):
        raise DataError(f"{path}: 'nc' is {content['nc']}, but 'names' has {len(table.names)} class names")
    return table


def _images_by_split(root, files, content, path, findings) -> dict[str, list[str]]:
    """Return the names of the images of each split, relative to the root or absolute."""
    if any(content.get(key) for key in ("train", "val", "valid", "test")):
        return _images_of_yaml(root, content, path, findings)
    found: dict[str, list[str]] = {}
    for folder, names in files.items():
        images = [join(folder, name) for name in names if is_image(name)]
        if images and "labels" not in folder.lower().split("/"):
            split = next((part for part in map(split_named, folder.split("/")) if part), "all")
            found.setdefault(split, []).extend(images)
    for split in SPLITS:
        lists = [root / join(folder, f"{name}.txt") for folder in ("", "ImageSets") for name in SPLIT_NAMES[split]]
        if split not in found and "all" in found and (path := next(filter(Path.is_file, lists), None)):
            found[split] = _listed(path, [root], findings, root)
    if "all" in found and len(found) > 1:
        taken = {name for split, names in found.items() if split != "all" for name in names}
        for name in found.pop("all"):
            if name not in taken:
                findings.repair("images in no split left out", name)
    return found


def _images_of_yaml(root: Path, content: dict, path: Path, findings: FolderFindings) -> dict[str, list[str]]:
    base = str(content.get("path") or "")
    start = find_foreign_path(base, [path.parent, root]) if base else None
    folders = list(dict.fromkeys([*([start] if start else []), path.parent, root]))
    found = {}
    for split, keys in (("train", ("train",)), ("val", ("val", "valid")), ("test", ("test",))):
        values = next((content[key] for key in keys if content.get(key)), None)
        names: list[str] = []
        for value in values if isinstance(values, list) else [values] if values else []:
            place = find_foreign_path(str(value), folders)
            if place is None and split == "test":
                findings.note(f"{path.name}: 'test: {value}' does not exist and is ignored")
                continue
            if place is None:
                raise DataError(f"{path}: '{keys[0]}: {value}' does not exist, neither in {path.parent} nor below it")
            if is_foreign(str(value)) or is_foreign(base) or not (folders[0] / str(value)).exists():
                findings.repair("path of another machine or of Windows read as one in this folder", path.name)
            if place.is_file():
                names += _listed(place, [*folders, place.parent], findings, root)
                continue
            inner = place / "images" if (place / "images").is_dir() and (place / "labels").is_dir() else place
            below = list_files(inner)
            names += [
                relative_name(inner / folder / name, root)
                for folder, entries in below.items()
                for name in entries
                if is_image(name)
            ]
        if names:
            found[split] = names
    return found


def _listed(path: Path, folders: list[Path], findings: FolderFindings, root: Path) -> list[str]:
    """Read a list of image files."""
    names = []
    for number, line in text_lines(read_text(path, findings, root)):
        file = find_foreign_path(line, folders)
        where = f"{relative_name(path, root)} line {number}"
        if file is None or not file.is_file():
            findings.error("images of a list do not exist", f"{where}: {line}")
            continue
        if is_foreign(line):
            findings.repair("path of another machine or of Windows read as one in this folder", where)
        names.append(relative_name(file, root))
    if len(set(names)) < len(names):
        findings.repair("images listed twice used once", relative_name(path, root))
    return list(dict.fromkeys(names))


def _numbers(line: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in line.replace(",", " ").split()]
    except ValueError:
        return None
    return numbers if len(numbers) >= 5 else None


@dataclass
class _Labels:
    """Reader of label files, with what is counted over all of them."""

    root: Path
    files: dict[str, list[str]]
    table: ClassTable | None
    findings: FolderFindings
    highest: int = -1
    used: dict[str, str] = field(default_factory=dict)  # image by label file
    ids: set[int] = field(default_factory=set)
    boxes: int = 0
    as_corners: int = 0  # boxes that are valid corners
    leaving: int = 0  # of these, boxes that leave the image as center and size
    number: int = 0  # of annotations

    def read(self, image: dict) -> list[dict]:
        """Return the annotations of an image."""
        path = self._label_file(image["file_name"])
        if path is None:
            return []
        place = relative_name(path, self.root)
        if place in self.used:
            self.findings.error(
                "images of the same name share a label file", f"{image['file_name']}, {self.used[place]}"
            )
        self.used[place] = image["file_name"]
        lines = list(text_lines(read_text(path, self.findings, self.root)))
        found, seen = [], set()
        for number, line in lines:
            if line in seen:
                self.findings.repair("lines that occur twice in a file used once", f"{place} line {number}")
                continue
            seen.add(line)
            if (item := self._object(line, image, f"{place} line {number}")) is not None:
                found.append(item)
        return found

    def _label_file(self, name: str) -> Path | None:
        path = Path(name)
        folder, label = path.parent.as_posix(), f"{path.stem}.txt"
        folder = "" if folder == "." else folder
        swapped = _swap(folder, "images", "labels")
        for place in dict.fromkeys((swapped, join(folder, "labels"), join("labels", folder), folder)):
            if (self.root / place / label).is_file():
                return self.root / place / label
        return None

    def _object(self, line: str, image: dict, place: str) -> dict | None:
        findings = self.findings
        values = _numbers(line)
        if values is None:
            findings.error(
                "lines that are not 'class x y width height' or 'class x y x y x y ...'", f"{place}: {line[:40]}"
            )
            return None
        if "," in line:
            findings.repair("commas between numbers", place)
        label, *numbers = values
        if not all(map(math.isfinite, values)):
            findings.error("numbers that are NaN or infinite", place)
            return None
        if not label.is_integer() or label < 0:
            findings.error("class numbers that are not 0, 1, 2, ...", f"{place}: {label:g}")
            return None
        if "." in line.split()[0]:
            findings.repair("class numbers with a decimal point", place)
        if (category := self._category(int(label), place)) is None:
            return None
        if len(numbers) == 5:
            findings.repair("confidences after boxes ignored", place)
            numbers.pop()
        if len(numbers) != 4 and (len(numbers) % 2 or len(numbers) < 6):
            findings.error(
                "lines whose numbers are neither a box (4) nor pairs of a polygon", f"{place}: {len(numbers)}"
            )
            return None
        if (numbers := self._in_image(numbers, place)) is None:
            return None
        self.number += 1
        width, height = image["width"], image["height"]
        if len(numbers) == 4:
            x, y, w, h = numbers
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            return make_object(self.number, image["id"], category, box)
        points = [value * (height if i % 2 else width) for i, value in enumerate(numbers)]
        return make_object(self.number, image["id"], category, polygons=[points])

    def _category(self, label: int, place: str) -> int | None:
        """Return the category's id, which is its place among the names, from 1."""
        self.ids.add(label)
        if self.table is None:
            if label > 1000:
                self.findings.error("class numbers above 1000 without class names", f"{place}: {label}")
                return None
            self.highest = max(self.highest, label)
            return label + 1
        known = self.table.values or range(len(self.table.names))
        if label not in known:
            end = f"0..{len(known) - 1}" if self.table.values is None else "the ids of 'names'"
            self.findings.error(f"class numbers outside of {end}", f"{place}: {label}")
            return None
        return list(known).index(label) + 1 if self.table.values else label + 1

    def _in_image(self, numbers: list[float], place: str) -> list[float] | None:
        """Check fractions of the image's size, and clip those slightly outside."""
        low, high = min(numbers), max(numbers)
        if high > 1 + _TOLERANCE or low < -_TOLERANCE:
            what = "coordinates above 2 (in pixels?)" if high > 2 else "coordinates outside of the image"
            self.findings.error(
                f"{what}, must be fractions 0..1 of the image's size", f"{place}: {high if high > 1 else low:g}"
            )
            return None
        if len(numbers) == 4:
            x, y, w, h = numbers
            self.boxes += 1
            if w > x and h > y:
                self.as_corners += 1
                self.leaving += x + w / 2 > 1.01 or x < w / 2 - 0.01 or y + h / 2 > 1.01 or y < h / 2 - 0.01
            if w <= 0 or h <= 0:
                self.findings.repair("boxes of no width or height left out", place)
                return None
        if high > 1 or low < 0:
            self.findings.repair("coordinates slightly outside of the image clipped", place)
            numbers = [min(max(value, 0.0), 1.0) for value in numbers]
        return numbers

    def finish(self, num_images: int) -> None:
        """Report what is only visible over all files."""
        findings = self.findings
        if self.boxes and self.as_corners == self.boxes and self.leaving > _MANY * self.boxes:
            findings.error(
                "boxes that are corners (x1 y1 x2 y2), must be center and size (x y width height)",
                f"{self.boxes} of {self.boxes} boxes",
            )
        for what in [what for what in findings.errors if what.startswith("class numbers outside of 0..")]:
            if 0 not in self.ids and self.table and max(self.ids) == len(self.table.names):
                findings.errors[f"{what} (they seem to count from 1, must count from 0)"] = findings.errors.pop(what)
        folders = {place.rpartition("/")[0] for place in self.used}
        for folder in sorted(folders):
            for name in self.files.get(folder, ()):
                if _is_label(name) and join(folder, name) not in self.used:
                    findings.repair("label files without an image ignored", join(folder, name))
        if num_images and not self.used:
            findings.error("no image has a label file", f"{num_images} images in {self.root}")
        elif len(self.used) < num_images:
            findings.note(
                f"{num_images - len(self.used)} of {num_images} images have no label file: no objects in them"
            )
