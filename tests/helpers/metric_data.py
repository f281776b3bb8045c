"""Generate ground truth and detections for the tests and benchmark of metrics.

Notation: W, H are an image's width and height in pixels, boxes are ``x y w h`` in pixels.
"""

import numpy as np
import torch
from pycocotools import mask as mask_api

_DIRECTIONS = np.linspace(0, 2 * np.pi, 14, endpoint=False)


def _polygon(rng: np.random.Generator, box: np.ndarray) -> list[float]:
    """Return a star-shaped polygon that approximately fills a box."""
    x, y, w, h = box
    radius = rng.uniform(0.7, 1, len(_DIRECTIONS)) / 2
    points = np.stack([x + w * (0.5 + radius * np.cos(_DIRECTIONS)), y + h * (0.5 + radius * np.sin(_DIRECTIONS))], 1)
    return points.ravel().round(2).tolist()


def _boxes(rng: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(0.03), np.log(0.8), (count, 2))) * (width, height)
    corner = rng.uniform(0, 1, (count, 2)) * ((width, height) - size)
    return np.concatenate([corner, size], axis=1).round(2)  # count x 4


def _segmentation(rng: np.random.Generator, box: np.ndarray, height: int, width: int):
    """Return a mask in one of the three formats of annotation files, and its area in pixels."""
    polygon = _polygon(rng, box)
    code = mask_api.merge(mask_api.frPyObjects([polygon], height, width))
    area = float(mask_api.area(code))
    form = rng.choice(["polygon", "polygon", "compressed", "runs"])
    if form == "polygon":
        return [polygon], area
    if form == "compressed":
        return dict(size=code["size"], counts=code["counts"].decode("ascii")), area
    pixels = mask_api.decode(code).ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
    return dict(size=code["size"], counts=np.diff([0, *changes, len(pixels)]).tolist()), area


def make_ground_truth(
    *, num_images: int, num_categories: int, size: tuple[int, int], lvis: bool, crowds: float = 0.0, seed: int = 0
) -> dict:
    """Content of an annotation file; some images and some categories have no annotation.

    Args:
        size: W, H.
        lvis: with LVIS's fields, else COCO's.
        crowds: share of COCO's annotations that mark a crowd.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    names = [f"thing {number}" for number in range(num_categories)]
    # Ids as in COCO, with gaps, so that nobody takes a label for an id.
    category_ids = [1 + number + number // 10 for number in range(num_categories)]
    categories = [dict(id=id, name=name) for id, name in zip(category_ids, names, strict=True)]
    annotated = category_ids[: num_categories - num_categories // 10]
    images, annotations = [], []
    for number in range(num_images):
        image = dict(id=1000 + 3 * number, width=width, height=height, file_name=f"{number}.jpg")
        present = rng.choice(annotated, rng.integers(2, 6), replace=False) if number % 12 else np.zeros(0, int)
        for category in present.tolist():
            for box in _boxes(rng, int(rng.integers(1, 5)), width, height):
                segmentation, area = _segmentation(rng, box, height, width)
                annotation = dict(
                    id=len(annotations) + 1,
                    image_id=image["id"],
                    category_id=category,
                    bbox=box.tolist(),
                    area=area,
                    segmentation=segmentation,
                )
                if not lvis:
                    annotation["iscrowd"] = int(rng.random() < crowds)
                annotations.append(annotation)
        if lvis:
            absent = np.setdiff1d(category_ids, present)
            image["neg_category_ids"] = rng.choice(absent, 6, replace=False).tolist()
            image["not_exhaustive_category_ids"] = present[rng.random(len(present)) < 0.25].tolist()
        images.append(image)
    if lvis:
        for number, category in enumerate(categories):
            category["frequency"] = "rcf"[number % 3]
    return dict(images=images, annotations=annotations, categories=categories)


def make_predictions(content: dict, *, per_image: int, seed: int = 1) -> list[dict]:
    """Generate detections in mmdet's format, with masks as run-length codes.

    A third sits near annotations, a third anywhere but with a category that counts in the image (annotated, or
    verified absent), a third anywhere with any category. Scores are coarse, so that many are equal. Every fifth
    image has half as many detections again, every ninth has none.
    """
    rng = np.random.default_rng(seed)
    label_of = {category["id"]: label for label, category in enumerate(content["categories"])}
    found = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append((annotation["bbox"], label_of[annotation["category_id"]]))
    samples = []
    for number, image in enumerate(content["images"]):
        width, height = image["width"], image["height"]
        count = 0 if number % 9 == 4 else per_image * 3 // 2 if number % 5 == 2 else per_image
        boxes = _boxes(rng, count, width, height)
        labels = rng.integers(len(label_of), size=count)
        counted = [label for _, label in found[image["id"]]] + [label_of[c] for c in image.get("neg_category_ids", [])]
        kind = rng.integers(3, size=count)
        if counted:
            labels[kind == 1] = rng.choice(counted, (kind == 1).sum())
        if found[image["id"]]:
            near = np.flatnonzero(kind == 0)
            chosen = rng.integers(len(found[image["id"]]), size=len(near))
            truth = np.array([box for box, _ in found[image["id"]]])[chosen]
            boxes[near] = truth + rng.normal(0, 0.1, truth.shape) * truth[:, [2, 3, 2, 3]]
            labels[near] = np.array([label for _, label in found[image["id"]]])[chosen]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        polygons = [_polygon(rng, box) for box in boxes]
        better = (kind == 0) & (rng.random(count) < 0.6)
        scores = (rng.beta(1, 4, count) + 0.2 * better).clip(0, 1).round(2)
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(height, width),
                pred_instances=dict(
                    bboxes=torch.from_numpy(
                        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
                    ).float(),
                    scores=torch.from_numpy(scores).float(),
                    labels=torch.from_numpy(labels),
                    masks=mask_api.frPyObjects(polygons, height, width) if polygons else [],
                ),
            )
        )
    return samples


def add_degenerate_shapes(content: dict, samples: list[dict], *, seed: int) -> None:
    """Set the area of some annotations and detections to zero, in place.

    Annotations: a seventh has an ``area`` of 0, a box without width, or an empty mask (the latter two with an area of
    0 or not); another seventh has ``ignore`` set; those of the first annotated category all have an area of 0.
    Detections: a seventh has a box without width or height and an empty mask.
    """
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    degenerate = min(annotation["category_id"] for annotation in content["annotations"])
    for annotation in content["annotations"]:
        kind = rng.integers(28)
        height, width = sizes[annotation["image_id"]]
        if kind == 0 or annotation["category_id"] == degenerate:
            annotation["area"] = 0
        elif kind in (1, 2):
            annotation["bbox"][2] = 0
            annotation["area"] *= kind - 1
        elif kind == 3:
            annotation["segmentation"] = dict(size=[height, width], counts=[height * width])
            annotation["area"] = 0.0
        elif kind < 8:
            annotation["ignore"] = 1
    for sample in samples:
        height, width = sizes[sample["img_id"]]
        instances = sample["pred_instances"]
        empty = mask_api.encode(np.zeros((height, width), np.uint8, order="F"))
        for index in np.flatnonzero(rng.random(len(instances["labels"])) < 1 / 7).tolist():
            side = int(rng.integers(2))
            instances["bboxes"][index, 2 + side] = instances["bboxes"][index, side]
            instances["masks"][index] = dict(empty)


def as_results(content: dict, samples: list[dict], iou_type: str) -> list[dict]:
    """Convert detections to the format of `lvis` and `pycocotools`: one dict each.

    Masks go without their boxes, else both packages would take a box's area for the mask's.
    """
    ids = [category["id"] for category in content["categories"]]
    results = []
    for sample in samples:
        instances = sample["pred_instances"]
        for box, score, label, mask in zip(
            instances["bboxes"].double().tolist(),
            instances["scores"].tolist(),
            instances["labels"].tolist(),
            instances["masks"],
            strict=True,
        ):
            x1, y1, x2, y2 = box
            shape = dict(bbox=[x1, y1, x2 - x1, y2 - y1]) if iou_type == "bbox" else dict(segmentation=dict(mask))
            results.append(dict(image_id=sample["img_id"], category_id=ids[label], score=score, **shape))
    return results
