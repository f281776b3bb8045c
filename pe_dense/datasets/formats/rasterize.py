"""Turn annotated objects into label maps for semantic segmentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, image_name
from pe_dense.datasets.davis import voc_color
from pe_dense.datasets.formats.files import content_hash
from pe_dense.datasets.formats.findings import DataError
from pe_dense.datasets.formats.map_pairs import MapData
from pe_dense.datasets.formats.objects import ObjectData, ObjectSplit
from pe_dense.datasets.formats.semantic_masks import IGNORED
from pe_dense.datasets.run_lengths import decode_mask
from pe_dense.utils.image import write_png

BACKGROUND = "background"


def rasterize(data: ObjectData, folder: Path | None) -> MapData:
    """Draw the masks of objects as label maps.

    Pixels without an object are of the class ``background``, which comes first unless the data have such a class.
    Smaller objects are drawn over larger ones; crowds have no class.

    Args:
        data: objects with masks.
        folder: folder for the maps; None to write nothing, for predictions.

    Returns:
        the images with paths of their maps.

    Raises:
        DataError: if there are too many classes.
    """
    names = list(data.classes)
    first = 0 if BACKGROUND in names else 1
    classes = ([BACKGROUND] if first else []) + names
    if len(classes) > IGNORED:
        raise DataError(f"{data.root} has {len(classes)} classes; semantic segmentation has {IGNORED} at most")
    result = MapData(
        data.root, f"{data.format} polygons as semantic masks", classes=tuple(classes), findings=data.findings
    )
    result.palette, result.reader = [voc_color(label) for label in range(len(classes))], dict(num_classes=len(classes))
    done: dict[int, list] = {}  # test and val may be the same
    for name, split in data.splits.items():
        if id(split) not in done:
            done[id(split)] = _draw(split, name, classes, first, folder)
        result.splits[name] = done[id(split)]
    return result


def _draw(split: ObjectSplit, name: str, classes, first: int, folder: Path | None) -> list:
    labels = {entry["id"]: number + first for number, entry in enumerate(split.content["categories"])}
    background = classes.index(BACKGROUND)
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in split.content["images"]}
    for item in split.content["annotations"]:
        by_image[item["image_id"]].append(item)
    target = None
    if folder is not None:
        target = (folder / f"{name}_masks_{content_hash(json.dumps(split.content))}").absolute()
    pairs = []
    for image in split.content["images"]:
        file = Path(split.images) / image_name(image, LVIS_NAMES if split.federated else COCO_NAMES)
        path = (target or Path("masks")) / f"{image['id']}_{file.stem}.png"
        pairs.append((str(file), str(path)))
        if target is not None and not path.is_file():
            write_png(path, _label_map(image, by_image[image["id"]], labels, background))
    return pairs


def _label_map(image: dict, items: list[dict], labels: dict[int, int], background: int) -> np.ndarray:
    """Draw the objects of an image, (H, W) uint8."""
    height, width = image["height"], image["width"]
    drawn = np.full((height, width), background, np.uint8)
    for item in sorted(items, key=lambda item: -item["area"]):
        if not item.get("segmentation"):
            continue
        label = IGNORED if item.get("iscrowd") else labels[item["category_id"]]
        drawn[decode_mask(item["segmentation"], (height, width))] = label
    return drawn
