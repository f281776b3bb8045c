"""One small set of pictures with objects, in every format of custom data."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("bolt", "cog")
SIZE = (64, 48)  # width and height in pixels
COLORS = ((200, 40, 40), (40, 60, 220))  # of the classes, in images and masks
BACKGROUND = (90, 90, 90)


def scene(number):
    """Objects of a picture: (label, left, top, width, height) in pixels; every third picture has a single class."""
    rng = np.random.default_rng(number)
    labels = [number % 2, (number + 1) % 2][: 1 if number % 3 == 0 else 2]
    return [
        (label, 2 + 32 * i + int(rng.integers(6)), 4 + int(rng.integers(8)), 20, 26) for i, label in enumerate(labels)
    ]


def label_map(number):
    """Labels (H, W) uint8 of a picture: 0 for the background, 1 and 2 for the classes."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    for label, left, top, width, height in scene(number):
        labels[top : top + height, left : left + width] = label + 1
    return labels


def picture(number):
    """Picture (H, W, 3) uint8 with noise."""
    colors = np.array([BACKGROUND, *COLORS])[label_map(number)]
    noise = np.random.default_rng(100 + number).integers(-20, 20, colors.shape)
    return (colors + noise).clip(0, 255).astype(np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def text(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding, newline="")
    return path


def split_of(number, count):
    """Split of a picture: the last third is of validation."""
    return "train" if number < count - count // 3 else "val"


def coco_content(numbers, names=None):
    """Content of an annotation file in COCO's format, with polygons."""
    images, annotations = [], []
    for number in numbers:
        images.append(dict(id=number, file_name=f"{number}.jpg", width=SIZE[0], height=SIZE[1]))
        for label, left, top, width, height in scene(number):
            right, bottom = left + width, top + height
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=[left, top, width, height],
                    area=width * height,
                    segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                    iscrowd=0,
                )
            )
    categories = [dict(id=label, name=name) for label, name in enumerate(names or NAMES, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(root, count=6, name="export.json"):
    """One file of any name, without a split."""
    for number in range(count):
        save(root / f"images/{number}.jpg", picture(number))
    text(root / name, json.dumps(coco_content(range(count))))
    return root


def write_lvis(root, count=6):
    """LVIS's fields, in files of two splits."""
    for split in ("train", "val"):
        numbers = [number for number in range(count) if split_of(number, count) == split]
        content = coco_content(numbers)
        for image in content["images"]:
            name = image.pop("file_name")
            image.update(
                coco_url=f"http://images.example.org/{split}/{name}",
                neg_category_ids=[],
                not_exhaustive_category_ids=[],
            )
            save(root / split / name, picture(image["id"]))
        for category in content["categories"]:
            category["frequency"] = "f"
        text(root / f"annotations/lvis_{split}.json", json.dumps(content))
    return root


def write_roboflow(root, count=6):
    """Roboflow's export with train, valid and test, and its placeholder category."""
    for split, numbers in (("train", range(count - 2)), ("valid", [count - 2]), ("test", [count - 1])):
        content = coco_content(numbers)
        for category in content["categories"]:
            category["supercategory"] = "parts"
        content["categories"].insert(0, dict(id=0, name="parts", supercategory="none"))
        for number in numbers:
            save(root / f"{split}/{number}.jpg", picture(number))
        text(root / f"{split}/_annotations.coco.json", json.dumps(content))
    return root


def yolo_lines(number, polygons=False):
    lines = []
    for label, left, top, width, height in scene(number):
        x, y, w, h = left / SIZE[0], top / SIZE[1], width / SIZE[0], height / SIZE[1]
        values = [x, y, x + w, y, x + w, y + h, x, y + h] if polygons else [x + w / 2, y + h / 2, w, h]
        lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def write_yolo(root, count=6, *, polygons=True, split=True, yaml=True):
    """``images/`` and ``labels/`` with or without folders of the splits and ``data.yaml``."""
    for number in range(count):
        folder = split_of(number, count) if split else "."
        save(root / "images" / folder / f"{number}.jpg", picture(number))
        text(root / "labels" / folder / f"{number}.txt", yolo_lines(number, polygons))
    if yaml:
        sources = "train: images/train\nval: images/val\n" if split else ""
        text(root / "data.yaml", f"path: .\n{sources}nc: 2\nnames: [{', '.join(NAMES)}]\n")
    else:
        text(root / "classes.txt", "\n".join(NAMES) + "\n")
    return root


def voc_xml(number, size=SIZE, name=None):
    objects = "".join(
        f"<object><name>{name or NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
        f"<ymin>{top + 1}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox></object>"
        for label, left, top, width, height in scene(number)
    )
    return (
        f"<annotation><filename>{number}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def write_voc(root, count=6):
    """VOC's own layout with lists of the splits."""
    lists = dict(train=[], val=[])
    for number in range(count):
        save(root / f"JPEGImages/{number}.jpg", picture(number))
        text(root / f"Annotations/{number}.xml", voc_xml(number))
        lists[split_of(number, count)].append(str(number))
    for split, numbers in lists.items():
        text(root / f"ImageSets/Main/{split}.txt", "\n".join(numbers) + "\n")
    return root


def boxes_of(content):
    """Objects of an annotation file's content by the name of the image: sorted (class name, rounded box)."""
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    files = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    found = {name: [] for name in files.values()}
    for item in content["annotations"]:
        box = tuple(round(value, 2) for value in item["bbox"])
        found[files[item["image_id"]]].append((names[item["category_id"]], box))
    return {name: sorted(objects) for name, objects in found.items()}


def expected_boxes(numbers):
    """What :func:`boxes_of` returns for pictures."""
    return {
        f"{number}.jpg": sorted((NAMES[label], tuple(map(float, box))) for label, *box in scene(number))
        for number in numbers
    }
