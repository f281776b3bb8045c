"""Draw a sheet of annotated images of a data set: boxes, masks, segments or depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pe_dense.datasets.annotations import COCO_NAMES, LVIS_NAMES, image_name
from pe_dense.datasets.davis import voc_color
from pe_dense.datasets.formats.coco_panoptic import PanopticData
from pe_dense.datasets.formats.map_pairs import MapData
from pe_dense.datasets.formats.objects import ObjectData
from pe_dense.datasets.formats.semantic_masks import IGNORED
from pe_dense.datasets.formats.splits import distinct_splits
from pe_dense.datasets.label_maps import LoadDepthMap, LoadLabelMap
from pe_dense.datasets.run_lengths import decode_mask
from pe_dense.ops.panopticapi import rgb2id
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import decode, read_image
from pe_dense.visualization.drawing import (
    Cell,
    DrawnObject,
    add_legend,
    draw_objects,
    draw_sheet,
    fit_image,
    heat_colors,
    id_borders,
    in_rows,
)

SIDE, COLUMNS = 320, 4  # px of the longer side of a sample, and samples in a row
_OPACITY = 0.6
_MOST_NAMES = 40  # classes in a legend
Drawing = tuple[str, Callable[[], np.ndarray]]  # title, and a function that draws the sample


def choose_samples(labels: Mapping[str, Iterable], count: int) -> list[str]:
    """Choose images that show every class where possible, and otherwise are spread over the data set.

    Args:
        labels: classes that occur in each image, by name.
        count: number of images.

    Returns:
        names in the order of ``labels``.
    """
    by_class: dict[object, str] = {}
    for name, found in labels.items():
        for label in found:
            by_class.setdefault(label, name)
    chosen = list(dict.fromkeys(by_class.values()))[:count]
    rest = [name for name in labels if name not in set(chosen)]
    missing = min(count - len(chosen), len(rest))
    chosen += [rest[i * len(rest) // missing] for i in range(missing)]
    order = {name: place for place, name in enumerate(labels)}
    return sorted(chosen, key=order.get)


def draw_contact_sheet(data: ObjectData | MapData | PanopticData | Sequence, count: int = 16) -> Image.Image | None:
    """Draw some annotated images of a data set, with their split and name as titles.

    Args:
        data: a data set; images by class as (file, class) pairs.
        count: number of images.

    Returns:
        the sheet; None if no image can be drawn.
    """
    if isinstance(data, ObjectData):
        drawings, entries = _objects(data, count), []
    elif isinstance(data, PanopticData):
        drawings = _panoptic(data, count)
        entries = [(name, voc_color(label)) for label, name in enumerate(data.classes, start=1)]
    elif isinstance(data, MapData):
        drawings, entries = _maps(data, count), list(zip(data.classes, data.palette, strict=True))
    else:
        drawings, entries = _classes(data, count), []
    cells: list[Cell] = []
    for title, draw in drawings:
        try:
            cells.append((title, fit_image(Image.fromarray(draw()), SIDE)))
        except (InputError, OSError):  # reported among the problems
            continue
    if not cells:
        return None
    sheet = draw_sheet(in_rows(cells, COLUMNS))
    return add_legend(sheet, entries[:_MOST_NAMES]) if entries else sheet


def _objects(data: ObjectData, count: int) -> list[Drawing]:
    names = {entry["id"]: entry["name"] for split in data.splits.values() for entry in split.content["categories"]}
    colors = {number: voc_color(place) for place, number in enumerate(names, start=1)}
    images, labels = {}, {}
    for part, split in distinct_splits(data.splits).items():
        items: dict[int, list[dict]] = {image["id"]: [] for image in split.content["images"]}
        for item in split.content["annotations"]:
            items[item["image_id"]].append(item)
        for image in split.content["images"]:
            file = Path(split.images) / image_name(image, LVIS_NAMES if split.federated else COCO_NAMES)
            title = f"{part}: {file.name} ({image['id']})"
            images[title] = (data.root / file, image, items[image["id"]])
            labels[title] = [item["category_id"] for item in items[image["id"]]]

    def draw(title: str) -> np.ndarray:
        path, image, items = images[title]
        pixels = np.array(read_image(path))
        objects = []
        for item in items:
            left, top, width, height = item["bbox"]
            mask = item.get("segmentation")
            mask = decode_mask(mask, (image["height"], image["width"])) if mask else None
            text = names[item["category_id"]] + (" (crowd)" if item.get("iscrowd") else "")
            box = (left, top, left + width, top + height)
            if mask is not None and mask.shape != pixels.shape[:2]:
                mask = None
            objects.append(DrawnObject(box=box, text=text, color=colors[item["category_id"]], mask=mask))
        return draw_objects(pixels, objects)

    return [(title, lambda title=title: draw(title)) for title in choose_samples(labels, count)]


def _maps(data: MapData, count: int) -> list[Drawing]:
    pairs = {image: (split, path) for split, found in distinct_splits(data.splits).items() for image, path in found}
    labels = {image: data.present.get(image, ()) for image in pairs}

    def draw(image: str) -> np.ndarray:
        pixels, path = np.array(read_image(data.root / image)), data.root / pairs[image][1]
        if not data.classes:
            options = {name: value for name, value in data.reader.items() if name != "max_depth"}
            depth = LoadDepthMap(**options).read(str(path))
            heat = heat_colors(1 - depth / max(float(depth.max()), 1e-6))
            return np.concatenate([pixels, np.where(depth[..., None] > 0, heat, 0).astype(np.uint8)], axis=1)
        values = np.array(decode(path, ignore_orientation=True))
        entry = dict(seg_map_path=str(path), img_path=image, ori_shape=pixels.shape[:2], reduce_zero_label=False)
        found = LoadLabelMap(**data.reader).labels(values, entry)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(data.palette)] = data.palette
        return _blend(pixels, palette[found], found != IGNORED)

    return [
        (f"{pairs[name][0]}: {Path(name).name}", lambda name=name: draw(name)) for name in choose_samples(labels, count)
    ]


def _blend(pixels: np.ndarray, colors: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Lay colors (H, W, 3) over an image where a mask (H, W) is True."""
    mixed = np.rint(pixels + _OPACITY * (colors.astype(np.float32) - pixels)).astype(np.uint8)
    return np.where(where[..., None], mixed, pixels)


def _panoptic(data: PanopticData, count: int) -> list[Drawing]:
    found, labels = {}, {}
    for part, split in distinct_splits(data.splits).items():
        places = {entry["id"]: place for place, entry in enumerate(split.content["categories"], start=1)}
        images = {image["id"]: image for image in split.content["images"]}
        for entry in split.content["annotations"]:
            title = f"{part}: {images[entry['image_id']]['file_name']}"
            found[title] = (split, images[entry["image_id"]], entry, places)
            labels[title] = [segment["category_id"] for segment in entry["segments_info"]]

    def draw(title: str) -> np.ndarray:
        split, image, entry, places = found[title]
        pixels = np.array(read_image(data.root / split.images / image["file_name"]))
        ids = rgb2id(np.array(decode(data.root / split.maps / entry["file_name"], ignore_orientation=True)))
        colors = np.zeros(pixels.shape, np.uint8)
        for segment in entry["segments_info"]:
            colors[ids == segment["id"]] = voc_color(places[segment["category_id"]])
        drawn = _blend(pixels, colors, ids > 0)
        drawn[id_borders(ids)] = 255
        return drawn

    return [(title, lambda title=title: draw(title)) for title in choose_samples(labels, count)]


def _classes(rows: Sequence[tuple[Path, str]], count: int) -> list[Drawing]:
    labels = {str(path): [label] for path, label in rows}
    return [
        (f"{labels[name][0]}: {Path(name).name}", lambda name=name: np.array(read_image(name)))
        for name in choose_samples(labels, count)
    ]
