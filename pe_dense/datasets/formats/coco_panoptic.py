"""COCO's panoptic format: a JSON file with the segments of each image, and PNG files whose colors are segment ids.

Source: https://cocodataset.org/#format-data, "Panoptic Segmentation". The output of ``tools/predict.py`` is in this
format, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pe_dense.datasets.annotations import AnnotationError, read_json, some
from pe_dense.datasets.formats.coco_layout import split_rank
from pe_dense.datasets.formats.files import list_files
from pe_dense.datasets.formats.findings import DataError, FolderFindings
from pe_dense.datasets.formats.object_reader import data_root
from pe_dense.datasets.formats.objects import subset
from pe_dense.datasets.formats.splits import complete_splits, distinct_splits
from pe_dense.datasets.panoptic import panoptic_problems
from pe_dense.ops.panopticapi import VOID, rgb2id
from pe_dense.utils.image import ImageError, decode, image_size

NAME = "COCO panoptic"
_MOST_MAPS = 500  # PNG files that are compared with the JSON file before training
_KEY = b'"segments_info"'


@dataclass
class PanopticSplit:
    """Segmented images of a split.

    Attributes:
        content: content of the annotation file.
        images, maps: folders of images and of PNG files; relative to the data folder.
        path: the user's own annotation file if it can be used as it is; None for converted content.
    """

    content: dict
    images: str
    maps: str
    path: Path | None = None


@dataclass
class PanopticData:
    """A data set of segmented images.

    Attributes:
        root: data folder.
        splits: by 'train', 'val' and 'test'.
        things, stuff: names of the classes, in the order of the labels, things first.
        findings: what was found on reading.
    """

    root: Path
    splits: dict[str, PanopticSplit] = field(default_factory=dict)
    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    findings: FolderFindings = field(default_factory=FolderFindings)
    format: str = NAME

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.things + self.stuff

    def describe(self) -> str:
        """Return one line with the format, the number of classes and the counts of each split."""
        counts = ", ".join(
            f"{name} {len(split.content['images'])} images, {_num_segments(split.content)} segments"
            for name, split in distinct_splits(self.splits).items()
        )
        return f"{self.root}: {NAME} format, {len(self.things)} classes of things, {len(self.stuff)} of stuff; {counts}"


def _num_segments(content: dict) -> int:
    return sum(len(entry["segments_info"]) for entry in content["annotations"])


def annotation_files(root: Path) -> list[Path]:
    """List the JSON files of a folder that have segments of images."""
    names = [root / folder / name for folder, names in list_files(root, 2).items() for name in names]
    return [path for path in names if path.suffix.lower() == ".json" and _has_segments(path)]


def _has_segments(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        return _KEY in head or _KEY in file.read()


def read_panoptic(
    folder: str | Path,
    wanted: tuple[str, ...],
    *,
    records: tuple[Path, ...] = (),
    write_to: Path | None = None,
    strict: bool = True,
) -> PanopticData:
    """Read a data set in COCO's panoptic format.

    Categories are sorted so that things come first, as heads need them.

    Args:
        folder: data folder.
        wanted: splits to read; 'test' without such images is validation.
        records: files of an earlier split.
        write_to: file for a new split.
        strict: raise an error if there are problems; otherwise they are in ``findings``.

    Raises:
        ConfigError: if the data are not valid, or are not in this format.
    """
    root, _ = data_root(folder)
    data = PanopticData(root)
    found = _by_split(root, annotation_files(root))
    splits = {split: _read(root, split, path, data.findings) for split, path in found.items()}
    if strict:
        data.findings.check(root, NAME)
    data.splits = complete_splits(
        root, splits, wanted, data.findings, labels=_labels, select=_select, records=records, write_to=write_to
    )
    data.things, data.stuff = _common_classes(data)
    return data


def _by_split(root: Path, paths: list[Path]) -> dict[str, Path]:
    if not paths:
        raise DataError(
            f"{root} contains no file of panoptic annotations (JSON with 'segments_info', see docs/custom_data.md): "
            "a panoptic config needs segments of all pixels, not objects or masks alone"
        )
    if len(paths) == 1:
        return {"all": paths[0]}
    found: dict[str, Path] = {}
    for path in paths:
        ranks = {split: split_rank(path.stem, split) for split in ("train", "val", "test")}
        ranks = {split: rank for split, rank in ranks.items() if rank is not None}
        split = min(ranks, key=ranks.get) if ranks else None
        if split is None or split in found:
            names = ", ".join(str(path.relative_to(root)) for path in paths)
            raise DataError(
                f"{root} has several files of panoptic annotations: {names}; name them after train, val, test"
            )
        found[split] = path
    return found


def _read(root: Path, split: str, path: Path, findings: FolderFindings) -> PanopticSplit:
    content = read_json(path)
    if problems := list(panoptic_problems(content)):
        raise AnnotationError(f"{path} is not a valid file of panoptic annotations: {'; '.join(problems)}")
    if not content["images"] or not content["annotations"]:
        raise AnnotationError(f"{path} lists no image with segments")
    names = [entry["name"] for entry in content["categories"]]
    if len(set(names)) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        raise AnnotationError(f"{path}: {len(twice)} category names occur several times: {some(twice)}")
    ordered = sorted(content["categories"], key=lambda entry: not entry["isthing"])
    changed = ordered != content["categories"]
    if changed:
        content["categories"] = ordered
        findings.repair("categories sorted, things first", path.name)
    maps = _find_folder(root, content["annotations"][0]["file_name"], path, (path.stem, "panoptic"), ())
    images = _find_folder(root, content["images"][0]["file_name"], path, (split, "images"), (maps,))
    result = PanopticSplit(content, images, maps, None if changed else path)
    _check_maps(root, result, path, findings)
    return result


def _find_folder(root: Path, name: str, path: Path, preferred: tuple[str, ...], excluded: tuple[str, ...]) -> str:
    """Find the folder that has a file."""
    found = [folder for folder in list_files(root, 3) if (root / folder / name).is_file() and folder not in excluded]
    for word in preferred:
        found = [folder for folder in found if word in folder] or found
    if not found:
        raise DataError(f"{path} lists {name}, which is in no folder of {root} up to 3 levels deep")
    if len(found) > 1:
        raise DataError(f"{path} lists {name}, which is in several folders of {root}: {', '.join(found)}")
    return found[0]


def _check_maps(root: Path, split: PanopticSplit, path: Path, findings: FolderFindings) -> None:
    """Compare images and PNG files with the annotations."""
    images = {image["id"]: image for image in split.content["images"]}
    annotations = split.content["annotations"]
    for entry in annotations:
        file = images[entry["image_id"]]["file_name"]
        for folder, name, what in ((split.images, file, "images"), (split.maps, entry["file_name"], "PNG files")):
            if not (root / folder / name).is_file():
                findings.error(f"{what} that do not exist", f"{path.name}: {name}")
    without = set(images) - {entry["image_id"] for entry in annotations}
    for number in sorted(without):
        findings.error("images without segments", f"{path.name} id {number}")
    if findings.errors:
        return
    step = max(1, len(annotations) // _MOST_MAPS)
    for entry in annotations[::step]:
        for fault, place in _map_faults(root, split, images[entry["image_id"]], entry):
            findings.error(fault, place)


def _map_faults(root: Path, split: PanopticSplit, image: dict, entry: dict) -> Iterator[tuple[str, str]]:
    name = entry["file_name"]
    try:
        colors = np.array(decode(root / split.maps / name, ignore_orientation=True))
        size = image_size(root / split.images / image["file_name"])
    except ImageError as error:
        yield "files that cannot be read", str(error)
        return
    if colors.ndim != 3 or colors.shape[2] < 3:
        yield "PNG files that are not RGB", name
        return
    written = (image["width"], image["height"])
    if not size == written == colors.shape[1::-1]:
        sides = (
            f"{size[0]} x {size[1]} px, in JSON {written[0]} x {written[1]}, PNG {colors.shape[1]} x {colors.shape[0]}"
        )
        yield "images, PNG files and JSON of different sizes", f"{image['file_name']}: {sides}"
        return
    present = set(np.unique(rgb2id(colors[..., :3])).tolist()) - {VOID}
    listed = {segment["id"] for segment in entry["segments_info"]}
    if unknown := sorted(present - listed):
        yield "segments of PNG files that JSON does not list", f"{name}: id {unknown[0]}"
    if absent := sorted(listed - present):
        yield "segments that no pixel of the PNG file has", f"{name}: id {absent[0]}"


def _labels(split: PanopticSplit) -> dict[str, set[int]]:
    """Return the categories that occur in each image, by its name."""
    names = {image["id"]: image["file_name"] for image in split.content["images"]}
    labels: dict[str, set[int]] = {name: set() for name in names.values()}
    for entry in split.content["annotations"]:
        labels[names[entry["image_id"]]] |= {segment["category_id"] for segment in entry["segments_info"]}
    return labels


def _select(split: PanopticSplit, names: list[str]) -> PanopticSplit:
    return PanopticSplit(subset(split.content, names), split.images, split.maps)


def _common_classes(data: PanopticData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tables = {
        split: tuple((entry["name"], bool(entry["isthing"])) for entry in part.content["categories"])
        for split, part in data.splits.items()
    }
    first = next(iter(tables.values()))
    for split, table in tables.items():
        if table != first:
            raise DataError(f"{data.root}: the categories of {split} differ from those of {next(iter(tables))}")
    return tuple(name for name, thing in first if thing), tuple(name for name, thing in first if not thing)
