"""The common form of annotated objects that all formats are converted to: that of COCO's annotation files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pe_dense.datasets.annotation_table import AnnotationTable
from pe_dense.datasets.annotations import class_names
from pe_dense.datasets.formats.files import content_hash
from pe_dense.datasets.formats.findings import FolderFindings
from pe_dense.datasets.formats.image_sizes import ImageSizes
from pe_dense.datasets.formats.splits import distinct_splits
from pe_dense.utils.atomic_write import write_text
from pe_dense.utils.image import ImageError


@dataclass
class ObjectSplit:
    """Annotated images of a split.

    Attributes:
        source: ``images``, ``annotations`` and ``categories`` as in COCO's files, or the columns of such a file.
        images: folder that file names are relative to; relative to the data folder, or absolute.
        path: the user's own annotation file if it can be used as it is; None for converted content.
        federated: whether the annotations follow LVIS's rules.
    """

    source: dict | AnnotationTable
    images: str
    path: Path | None = None
    federated: bool = False

    @cached_property
    def content(self) -> dict:
        """``images``, ``annotations`` and ``categories``; of a large file, this takes seconds and gigabytes."""
        return self.source if isinstance(self.source, dict) else self.source.content()

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.source["images"]) if isinstance(self.source, dict) else self.source.num_images

    @property
    def num_objects(self) -> int:
        """Number of annotations."""
        return len(self.source["annotations"]) if isinstance(self.source, dict) else self.source.num_annotations

    @property
    def num_masks(self) -> int:
        """Number of annotations with a mask."""
        if isinstance(self.source, dict):
            return sum(bool(item.get("segmentation")) for item in self.source["annotations"])
        return self.source.num_masks

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return class_names(self.source) if isinstance(self.source, dict) else self.source.class_names()


@dataclass
class ObjectData:
    """A data set of objects.

    Attributes:
        root: data folder.
        format: name of its format.
        splits: by 'train', 'val' and 'test'.
        findings: what was found on reading.
    """

    root: Path
    format: str
    splits: dict[str, ObjectSplit] = field(default_factory=dict)
    findings: FolderFindings = field(default_factory=FolderFindings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return next(iter(self.splits.values())).classes

    @property
    def has_boxes_only(self) -> bool:
        """Whether there are objects, and none of them has a mask."""
        splits = self.splits.values()
        return any(split.num_objects for split in splits) and not any(split.num_masks for split in splits)

    def describe(self) -> str:
        """Return one line with the format, the number of classes and the counts of each split."""
        counts = ", ".join(
            f"{name} {split.num_images} images, {split.num_objects} objects"
            for name, split in distinct_splits(self.splits).items()
        )
        return f"{self.root}: {self.format} format, {len(self.classes)} classes; {counts}"


def new_content(images: list[dict], classes: Sequence[str]) -> dict:
    """Create the content of an annotation file without annotations; the categories' ids count from 1."""
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, start=1)]
    return dict(images=images, annotations=[], categories=categories)


def make_object(
    number: int,
    image_id: int,
    category: int,
    box: Sequence[float] | None = None,
    *,
    polygons: list[list[float]] | None = None,
    crowd: bool = False,
) -> dict:
    """Create an annotation.

    Args:
        number: its id.
        image_id: id of the image.
        category: id of the category.
        box: left, top, width and height in pixels; that of the polygons by default.
        polygons: lists x, y, x, y, ... in pixels.
        crowd: whether it is a region to ignore in training and evaluation.
    """
    area = None
    if polygons:
        xs, ys = [x for part in polygons for x in part[0::2]], [y for part in polygons for y in part[1::2]]
        box = box or [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        area = sum(_area(part) for part in polygons)
    item = dict(
        id=number,
        image_id=image_id,
        category_id=category,
        bbox=[round(value, 4) for value in box],
        area=round(area if area is not None else box[2] * box[3], 4),
        iscrowd=int(crowd),
    )
    if polygons:
        item["segmentation"] = [[round(value, 4) for value in part] for part in polygons]
    return item


def _area(part: Sequence[float]) -> float:
    points = list(zip(part[0::2], part[1::2], strict=True))
    following = [*points[1:], points[0]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


def sized_images(sizes: ImageSizes, names: Iterable[str], findings: FolderFindings) -> list[dict]:
    """Create the entries of images with the sizes in the headers of their files.

    Args:
        sizes: reads the sizes.
        names: files, in the order of their ids, which count from 1.
        findings: receives images that cannot be read, as problems.
    """
    images = []
    for name in names:
        try:
            width, height = sizes.read(name)
        except (ImageError, FileNotFoundError):
            findings.error("images that cannot be read", name)
            continue
        images.append(dict(id=len(images) + 1, file_name=str(name), width=width, height=height))
    return images


def subset(content: dict, names: Iterable[str], name_of=lambda image: image["file_name"]) -> dict:
    """Return the part of an annotation file's content that belongs to some images.

    Args:
        content: content of the file.
        names: names of the images.
        name_of: returns the name of an image's entry.
    """
    wanted = set(names)
    images = [image for image in content["images"] if name_of(image) in wanted]
    ids = {image["id"] for image in images}
    annotations = [item for item in content["annotations"] if item["image_id"] in ids]
    return dict(content, images=images, annotations=annotations)


def labels_by_image(content: dict, name_of=lambda image: image["file_name"]) -> dict[str, set[int]]:
    """Return the categories that occur in each image, by its name."""
    found: dict[int, set[int]] = {image["id"]: set() for image in content["images"]}
    for item in content["annotations"]:
        if item["image_id"] in found:
            found[item["image_id"]].add(item["category_id"])
    return {name_of(image): found[image["id"]] for image in content["images"]}


def write_content(folder: Path, name: str, content: dict) -> Path:
    """Write converted annotations to a file named after their content, unless it exists.

    Args:
        folder: folder of the run's data.
        name: beginning of the file's name.
        content: content of the file.

    Returns:
        the path, ``<folder>/<name>_<hash>.json``.
    """
    text = json.dumps(content) + "\n"
    path = (folder / f"{name}_{content_hash(text)}.json").absolute()
    if not path.is_file():
        write_text(path, text)
    return path


def count_classes(content: dict) -> dict[str, tuple[int, int]]:
    """Return the number of objects and of images with objects of each class, by name, in the file's order."""
    objects = Counter(item["category_id"] for item in content["annotations"])
    images = Counter(
        label for labels in labels_by_image(content, lambda image: image["id"]).values() for label in labels
    )
    return {entry["name"]: (objects[entry["id"]], images[entry["id"]]) for entry in content["categories"]}
