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


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def split_of(number, count):
    """Split of a picture: the last third is of validation."""
    return "train" if number < count - count // 3 else "val"


def coco_content(numbers):
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
    categories = [dict(id=label, name=name) for label, name in enumerate(NAMES, start=1)]
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


def voc_xml(number):
    objects = "".join(
        f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
        f"<ymin>{top + 1}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox></object>"
        for label, left, top, width, height in scene(number)
    )
    return (
        f"<annotation><filename>{number}.jpg</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height>"
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


def labelme_json(number, polygons=False, **fields):
    """Content of a labelme file of rectangles or polygons; its path is one of Windows."""
    shapes = []
    for label, left, top, width, height in scene(number):
        right, bottom = left + width, top + height
        points = [[right, bottom], [left, top]]
        if polygons:
            points = [[left, top], [right, top], [right, bottom], [left, bottom]]
        kind = "polygon" if polygons else "rectangle"
        shapes.append(dict(label=NAMES[label], points=points, shape_type=kind))
    content = dict(version="5.5.0", flags={}, shapes=shapes, imagePath=f"C:\\photos\\{number}.jpg", imageData=None)
    return json.dumps(content | dict(imageHeight=SIZE[1], imageWidth=SIZE[0]) | fields)


def write_labelme(root, count=6):
    """Polygons in JSON files beside the images, in folders of the splits."""
    for number in range(count):
        folder = root / split_of(number, count)
        save(folder / f"{number}.jpg", picture(number))
        text(folder / f"{number}.json", labelme_json(number, polygons=True))
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


def write_masks(root, count=6, *, kind="index", split=True):
    """``images/`` and ``masks/`` with labels, palette colors, RGB colors or binary values."""
    table = np.array([BACKGROUND, *COLORS], np.uint8)
    for number in range(count):
        folder = split_of(number, count) if split else "."
        save(root / "images" / folder / f"{number}.jpg", picture(number))
        labels = label_map(number)
        path = root / "masks" / folder / f"{number}.png"
        if kind == "palette":
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(labels, mode="P")
            image.putpalette(table.tobytes())
            image.save(path)
        elif kind == "binary":
            save(path, np.where(labels > 0, 255, 0).astype(np.uint8))
        else:
            save(path, table[labels] if kind == "rgb" else labels)
    names = ("background", *NAMES)
    if kind == "rgb":
        rows = [f"{name},{','.join(map(str, color))}" for name, color in zip(names, table.tolist(), strict=True)]
        text(root / "classes.csv", "\n".join(["name,r,g,b", *rows]) + "\n")
    elif kind != "binary":
        text(root / "classes.txt", "\n".join(names) + "\n")
    return root


def depth_map(number):
    """Depth (H, W) float32 in meters: a ramp from 2 to 4 m, objects at 1 and 1.5 m, unknown in a corner."""
    depth = np.linspace(2, 4, SIZE[1], dtype=np.float32)[:, None].repeat(SIZE[0], 1)
    labels = label_map(number)
    depth[labels > 0] = 0.5 + 0.5 * labels[labels > 0]
    depth[:4, :4] = 0
    return depth


def write_depth(root, count=6, *, kind="png", scale=1e-3):
    """``train/rgb``, ``train/depth`` and so on, with integers, meters in NumPy files, or meters in TIFF files."""
    for number in range(count):
        folder = root / split_of(number, count)
        save(folder / f"rgb/{number}.jpg", picture(number))
        depth = depth_map(number)
        if kind == "png":
            save(folder / f"depth/{number}.png", np.rint(depth / scale).astype(np.uint16))
        elif kind == "npy":
            (folder / "depth").mkdir(exist_ok=True)
            np.save(folder / f"depth/{number}.npy", np.where(depth > 0, depth, np.nan))
        else:
            save(folder / f"depth/{number}.tiff", depth)
    return root


def write_panoptic(root, count=6):
    """COCO's panoptic format in two files, with stuff before things in the list of categories."""
    for split in ("train", "val"):
        images, annotations = [], []
        for number in [number for number in range(count) if split_of(number, count) == split]:
            labels = label_map(number)
            ids = labels.astype(int) * 1000 + 7
            segments = []
            for value in np.unique(labels).tolist():
                rows, columns = np.nonzero(labels == value)
                left, top = int(columns.min()), int(rows.min())
                box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
                segments.append(dict(id=value * 1000 + 7, category_id=value, area=len(rows), bbox=box, iscrowd=0))
            colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            save(root / f"images/{split}/{number}.jpg", picture(number))
            save(root / f"annotations/panoptic_{split}/{number}.png", colors)
            images.append(dict(id=number, file_name=f"{number}.jpg", width=SIZE[0], height=SIZE[1]))
            annotations.append(dict(image_id=number, file_name=f"{number}.png", segments_info=segments))
        categories = [dict(id=0, name="ground", isthing=0)]
        categories += [dict(id=label, name=name, isthing=1) for label, name in enumerate(NAMES, start=1)]
        content = dict(images=images, annotations=annotations, categories=categories)
        text(root / f"annotations/panoptic_{split}.json", json.dumps(content))
    return root
