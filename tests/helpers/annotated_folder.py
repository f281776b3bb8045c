"""Small custom data sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64  # side of the images, in pixels


def square(left, top, side):
    return [left, top, side, side]


def content(classes, names, boxes=None, federated=False, id_step=1):
    """Annotations of images: by default one polygon per class in each; category ids count by `id_step`."""
    images = [dict(id=i, file_name=name, width=SIZE, height=SIZE) for i, name in enumerate(names)]
    categories = [dict(id=(i + 1) * id_step, name=name) for i, name in enumerate(classes)]
    if federated:
        images = [
            dict(
                {key: value for key, value in image.items() if key != "file_name"},
                coco_url=f"http://images.example.org/{image['file_name']}",
                neg_category_ids=[],
                not_exhaustive_category_ids=[],
            )
            for image in images
        ]
        categories = [dict(category, frequency="f") for category in categories]
    annotations = []
    for image in images:
        for number, box in enumerate(boxes or [square(4 + 3 * i, 6, 20) for i in range(len(classes))]):
            left, top, width, height = box
            right, bottom = left + width, top + height
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image["id"],
                    category_id=categories[number % len(categories)]["id"],
                    bbox=box,
                    area=width * height,
                    segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                    iscrowd=0,
                )
            )
    return dict(images=images, annotations=annotations, categories=categories)


def write_images(folder: Path, names):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(folder / name)


def write_json(path: Path, annotations):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(annotations))


def write_folder(root: Path, classes=("cog", "bolt", "washer"), federated=False, val_classes=None):
    """Three training and two validation images in `pictures/`, annotations in `annotations/`."""
    for split, count, names in (("train", 3, classes), ("val", 2, val_classes or classes)):
        files = [f"{split}_{i}.png" for i in range(count)]
        write_images(root / "pictures", files)
        write_json(root / f"annotations/parts_{split}.json", content(names, files, federated=federated, id_step=7))
    return root
