"""Report on a folder of custom data before training: format, counts by class and split, image sizes, problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, image_name
from pe_dense.datasets.formats import class_folders, depth_maps, semantic_masks
from pe_dense.datasets.formats.coco_panoptic import PanopticData, annotation_files, read_panoptic
from pe_dense.datasets.formats.files import is_image, list_files
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.map_pairs import MapData
from pe_dense.datasets.formats.map_reader import read_depth, read_masks
from pe_dense.datasets.formats.object_reader import data_root, object_format, read_objects
from pe_dense.datasets.formats.objects import ObjectData, count_classes
from pe_dense.datasets.formats.splits import distinct_splits
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import ImageError, image_size

TASKS = ("objects", "semantic", "panoptic", "depth", "classes")
_SPLITS = ("train", "val", "test")
_MOST_SIZES = 20_000  # images whose headers are read


@dataclass
class DataReport:
    """What a folder of custom data contains.

    Attributes:
        task: one of ``TASKS``.
        data: the data set, for a contact sheet; None if it cannot be read.
        lines: the report.
        has_problems: whether training would refuse the data.
    """

    task: str
    data: ObjectData | MapData | PanopticData | Sequence | None
    lines: list[str] = field(default_factory=list)
    has_problems: bool = False


def report_data(folder: str | Path, task: str | None = None, *, depth_scale: float | None = None) -> DataReport:
    """Read all of a data folder and report on it; nothing but the cache of a large annotation file is written.

    Args:
        folder: data folder, or YOLO's ``data.yaml``.
        task: one of ``TASKS``; recognized by default.
        depth_scale: meters per unit of integer depth maps.

    Raises:
        ConfigError: if the folder does not exist or contains no known data.
    """
    root, is_yolo = data_root(folder)
    task = task or ("objects" if is_yolo else find_task(root))
    report = DataReport(task, None)
    try:
        if task == "objects":
            data = report.data = read_objects(folder, _SPLITS, strict=False)
            _check_images(data)
            details = _object_lines(data)
        elif task == "panoptic":
            data = report.data = read_panoptic(folder, _SPLITS, strict=False)
            details = _panoptic_lines(data)
        elif task in ("semantic", "depth"):
            if task == "depth":
                data = read_depth(folder, _SPLITS, scale=depth_scale, strict=False)
            else:
                data = read_masks(folder, _SPLITS, strict=False)
            report.data, details = data, _map_lines(data)
        else:
            rows = report.data = class_folders.read(root)
            counts = Counter(label for _, label in rows)
            report.lines = [f"{root}: {class_folders.NAME}, {len(counts)} classes, {len(rows)} images"]
            report.lines += _table(["class", "images"], [[name, str(count)] for name, count in counts.items()])
            report.lines += _sizes([path for path, _ in rows])
            return report
    except ConfigError as error:
        report.lines.append(f"problem: {error}")
        report.has_problems = True
        return report
    report.lines = [data.describe(), *details, *data.findings.lines()]
    report.has_problems = bool(data.findings.errors)
    return report


def find_task(root: Path) -> str:
    """Return the task of the data in a folder.

    Raises:
        DataError: if there are none.
    """
    if annotation_files(root):
        return "panoptic"
    if depth_maps.recognize(root):
        return "depth"
    if object_format(root, FolderFindings()):
        return "objects"
    if semantic_masks.recognize(root):
        return "semantic"
    try:
        class_folders.read(root)
    except DataError:
        num_images = sum(is_image(name) for names in list_files(root).values() for name in names)
        raise DataError(
            f"{root} has {num_images} images, but no annotations of a known format (COCO, LVIS, YOLO, Pascal VOC, "
            "labelme, masks, panoptic COCO, depth maps, folders by class): see docs/custom_data.md"
        ) from None
    return "classes"


def _check_images(data: ObjectData) -> None:
    """Compare images with the annotations."""
    for name, split in distinct_splits(data.splits).items():
        fields = LVIS_NAMES if split.federated else COCO_NAMES
        for image in split.content["images"]:
            path = data.root / split.images / image_name(image, fields)
            try:
                size = image_size(path)
            except FileNotFoundError:
                data.findings.error("images that do not exist", f"{name} id {image['id']}: {path.name}")
                continue
            except ImageError:
                data.findings.error("images that cannot be read", f"{name} id {image['id']}: {path.name}")
                continue
            if size != (image["width"], image["height"]):
                sides = f"{path.name}: {size[0]} x {size[1]} px, not {image['width']} x {image['height']}"
                data.findings.error("images of another size than annotated", sides)


def _object_lines(data: ObjectData) -> list[str]:
    splits = list(distinct_splits(data.splits).items())
    counts = {name: count_classes(split.content) for name, split in splits}
    rows = [
        [label, *(str(number) for name, _ in splits for number in counts[name].get(label, (0, 0)))]
        for label in data.classes
    ]
    heading = ["class", *(f"{name} {what}" for name, _ in splits for what in ("objects", "images"))]
    with_objects = {name: {item["image_id"] for item in split.content["annotations"]} for name, split in splits}
    empty = {name: split.num_images - len(with_objects[name]) for name, split in splits}
    masks = sum(split.num_masks for _, split in splits)
    total = sum(split.num_objects for _, split in splits)
    sizes = Counter((image["width"], image["height"]) for _, split in splits for image in split.content["images"])
    return [
        *_table(heading, rows),
        f"images without objects: {', '.join(f'{name} {count}' for name, count in empty.items())}",
        f"objects with a mask: {masks} of {total}",
        _size_line(sizes),
    ]


def _panoptic_lines(data: PanopticData) -> list[str]:
    splits = list(distinct_splits(data.splits).items())
    ids = {entry["id"]: entry["name"] for entry in splits[0][1].content["categories"]}
    counts = {
        name: Counter(
            ids[segment["category_id"]] for entry in split.content["annotations"] for segment in entry["segments_info"]
        )
        for name, split in splits
    }
    kinds = {name: "thing" if name in data.things else "stuff" for name in data.classes}
    rows = [[name, kinds[name], *(str(counts[split][name]) for split, _ in splits)] for name in data.classes]
    sizes = Counter((image["width"], image["height"]) for _, split in splits for image in split.content["images"])
    return [*_table(["class", "kind", *(f"{name} segments" for name, _ in splits)], rows), _size_line(sizes)]


def _map_lines(data: MapData) -> list[str]:
    splits = list(distinct_splits(data.splits).items())
    lines = []
    if data.classes:
        rows = []
        pixels = {name: Counter() for name, _ in splits}
        images = {name: Counter() for name, _ in splits}
        for name, pairs in splits:
            for image, _ in pairs:
                pixels[name].update(data.present.get(image, {}))
                images[name].update(data.present.get(image, {}).keys())
        for label, class_name in enumerate(data.classes):
            row = [class_name]
            for name, _ in splits:
                share = pixels[name][label] / max(pixels[name].total(), 1)
                row += [f"{share:.1%}", str(images[name][label])]
            rows.append(row)
        lines = _table(["class", *(f"{name} {what}" for name, _ in splits for what in ("pixels", "images"))], rows)
    return lines + _sizes([data.root / image for _, pairs in splits for image, _ in pairs])


def _sizes(paths: Sequence[Path]) -> list[str]:
    sizes: Counter = Counter()
    for path in paths[:_MOST_SIZES]:
        try:
            sizes[image_size(path)] += 1
        except (ImageError, FileNotFoundError):
            continue
    return [_size_line(sizes)] if sizes else []


def _size_line(sizes: Counter) -> str:
    if not sizes:
        return "no images"
    (width, height), count = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return f"image size: {width} x {height} px"
    low = [min(size[i] for size in sizes) for i in (0, 1)]
    high = [max(size[i] for size in sizes) for i in (0, 1)]
    return (
        f"image sizes: {low[0]}..{high[0]} px wide, {low[1]}..{high[1]} px high; most often {width} x {height} px "
        f"({count} images)"
    )


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Align columns, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = []
    for first, *others in (heading, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
