"""Generate the `shapes` data set: images, maps, and annotation files in the formats of COCO and LVIS.

Layout of a root::

    shapes.json                              what the root was made from
    train/000000.png                         RGB images; `val` likewise, here and below
    annotations/instances_train.json         COCO
    annotations/lvis_train.json              LVIS v1, federated
    annotations/captions_train.jsonl         per image: file (from the root) and captions
    semantic/train/000000.png                uint8: 0 background, class index + 1
    depth/train/000000.png                   uint16: millimeters
    panoptic/panoptic_train.json             COCO panoptic; added by :func:`write_panoptic`
    panoptic/panoptic_train/000000.png       ids of the segments as colors
"""

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from pe_dense.datasets.panoptic import segment_ids
from pe_dense.datasets.synthetic.cache import Progress, check_lowest, write_once, write_png
from pe_dense.datasets.synthetic.scene import (
    CAPTIONS,
    MIN_IMAGE_SIZE,
    Scene,
    check_difficulty,
    draw_caption,
    draw_scene,
    name_shapes,
)
from pe_dense.datasets.synthetic.shapes import CLASSES, PALETTE
from pe_dense.ops.panopticapi import id2rgb

# Increment it whenever the same arguments would generate different data.
VERSION = 3

# All differ from 0: NumPy's seed sequence does not tell trailing zeros apart.
_SPLIT_SEEDS = dict(train=1, val=2)
_FORMS_SEED = 3

CATEGORY_IDS = tuple(range(1, len(CLASSES) + 1))

# In LVIS a category is rare if it occurs in up to 10, and common in up to 100 of 100,000 training images. For a few
# hundred images, fractions of the training images are used instead.
RARE_SHARE = 0.22
COMMON_SHARE = 0.4

_VERIFIED_PRESENT = 0.85
_VERIFIED_ABSENT = 0.5
_EXHAUSTIVE = 0.8


def write_shapes(
    root: str | os.PathLike,
    *,
    num_train: int = 400,
    num_val: int = 80,
    image_size: int = 128,
    seed: int = 0,
    difficulty: str = "hard",
    perspective: bool = False,
) -> Path:
    """Generate the data set in ``root``, or reuse it if it exists.

    The data are written to ``root`` atomically, see :func:`pe_dense.datasets.synthetic.cache.write_once`. The first
    images of a split do not depend on its length.

    Args:
        root: folder to create; may exist if empty.
        num_train: number of training images.
        num_val: number of validation images.
        image_size: side of the square images, in pixels.
        seed: random seed, 0 or more.
        difficulty, perspective: of the scenes, see :func:`~pe_dense.datasets.synthetic.scene.draw_scene`.

    Returns:
        The resolved root.

    Raises:
        ValueError: if an argument is out of range.
        FileExistsError: if ``root`` contains anything else, such as data generated with other arguments.
    """
    spec = dict(num_train=num_train, num_val=num_val, image_size=image_size, seed=seed)
    check_lowest(spec, dict(num_train=1, num_val=1, image_size=MIN_IMAGE_SIZE, seed=0))
    check_difficulty(difficulty)
    spec = dict(version=VERSION, **spec, difficulty=difficulty)
    if perspective:  # only then, so that data generated before there was a choice stay valid
        spec["perspective"] = True
    return write_once(root, spec, kind="shapes", write=_write)


def _write(draft: Path, spec: dict) -> None:
    for split in _SPLIT_SEEDS:
        for folder in (split, f"semantic/{split}", f"depth/{split}"):
            (draft / folder).mkdir(parents=True)
    (draft / "annotations").mkdir()

    splits = dict(train=spec["num_train"], val=spec["num_val"])
    options = {name: spec[name] for name in ("image_size", "difficulty", "perspective") if name in spec}
    progress = Progress(sum(splits.values()), kind="shapes", unit="images")
    for split, num_images in splits.items():
        coco_images, coco_annotations, lvis_images, lvis_annotations = [], [], [], []
        captions = []
        for index in range(num_images):
            rng = np.random.default_rng((spec["seed"], _SPLIT_SEEDS[split], index))
            scene = draw_scene(rng, **options)
            name = f"{index:06d}.png"
            _write_maps(draft, split, name, scene)
            annotations = annotate(scene, image_id=index)
            kept, verification = federate(rng, annotations)
            image = dict(id=index, height=spec["image_size"], width=spec["image_size"])
            coco_images.append(dict(image, file_name=name))
            coco_annotations += annotations
            # LVIS names an image by split and file.
            lvis_images.append(dict(image, coco_url=f"{split}/{name}", **verification))
            lvis_annotations += kept
            captions.append(dict(file=f"{split}/{name}", captions=_captions(scene, (spec["seed"], split, index))))
            progress.advance()
        if split == "train":
            class_frequencies = frequencies(num_images, lvis_annotations)
        lvis = lvis_file(lvis_images, lvis_annotations, class_frequencies)
        coco = coco_file(coco_images, coco_annotations)
        (draft / f"annotations/instances_{split}.json").write_text(json.dumps(coco))
        (draft / f"annotations/lvis_{split}.json").write_text(json.dumps(lvis))
        lines = "".join(f"{json.dumps(line)}\n" for line in captions)
        (draft / f"annotations/captions_{split}.jsonl").write_text(lines)


def _captions(scene: Scene, place: tuple[int, str, int]) -> list[str]:
    """Captions of a whole scene, from random numbers of their own: the images do not depend on them."""
    seed, split, index = place
    rng = np.random.default_rng((seed, _SPLIT_SEEDS[split], index, 1))
    shapes = name_shapes(scene.image, scene.masks, scene.labels)
    return list(dict.fromkeys(draw_caption(rng, shapes) for _ in range(CAPTIONS)))


# Increment it whenever the same shapes would have different panoptic annotations.
PANOPTIC_VERSION = 1


def write_panoptic(root: str | os.PathLike) -> Path:
    """Add panoptic annotations to data of :func:`write_shapes`, or reuse them if they exist.

    The shapes are things and the background, after all of their classes, is stuff. The annotations follow from the
    instances, so that they can be added to data of any age; they are written atomically and know the data that they
    are of.

    Args:
        root: folder of the data.

    Returns:
        the folder of the annotations, ``panoptic`` in ``root``.

    Raises:
        FileExistsError: if that folder contains anything else.
        WriteError: if writing fails, such as in a read-only folder.
    """
    root = Path(root).resolve()
    spec = dict(version=PANOPTIC_VERSION, shapes=json.loads((root / "shapes.json").read_text()))
    return write_once(root / "panoptic", spec, kind="shapes_panoptic", write=partial(_write_panoptic, root))


def _write_panoptic(root: Path, draft: Path, spec: dict) -> None:
    for split in _SPLIT_SEEDS:
        content = json.loads((root / f"annotations/instances_{split}.json").read_text())
        (draft / f"panoptic_{split}").mkdir()
        of_image = {image["id"]: [] for image in content["images"]}
        for instance in content["annotations"]:
            of_image[instance["image_id"]].append(instance)
        annotations = []
        for image in content["images"]:
            ids, segments = _segments(of_image[image["id"]], (image["height"], image["width"]))
            write_png(draft / f"panoptic_{split}" / image["file_name"], id2rgb(ids)[..., ::-1])
            annotations.append(dict(image_id=image["id"], file_name=image["file_name"], segments_info=segments))
        background = dict(id=len(CLASSES) + 1, name="background", supercategory="background", isthing=0)
        categories = [*(dict(category, isthing=1) for category in content["categories"]), background]
        panoptic = dict(images=content["images"], annotations=annotations, categories=categories)
        (draft / f"panoptic_{split}.json").write_text(json.dumps(panoptic))


def _segments(instances: list[dict], size: tuple[int, int]) -> tuple[np.ndarray, list[dict]]:
    """Create a map of segment ids (H, W) and the segments from an image's instances and the background."""
    masks = [mask_api.decode(instance["segmentation"]).astype(bool) for instance in instances]
    rest = ~np.any(masks, axis=0) if masks else np.ones(size, bool)
    parts = [(instance["category_id"], mask) for instance, mask in zip(instances, masks, strict=True)]
    parts += [(len(CLASSES) + 1, rest)] if rest.any() else []
    ids, segments = np.zeros(size, np.int32), []
    for number, (category, mask) in zip(segment_ids([label - 1 for label, _ in parts], PALETTE), parts, strict=True):
        ids[mask] = number
        box = mask_api.toBbox(mask_api.encode(np.asfortranarray(mask, np.uint8))).tolist()
        segments.append(dict(id=number, category_id=category, area=int(mask.sum()), bbox=box, iscrowd=0))
    return ids, segments


# Increment it whenever the same arguments would generate different data.
FORMS_VERSION = 1


def write_forms(root: str | os.PathLike, *, num_images: int = 400, image_size: int = 128, seed: int = 0) -> Path:
    """Generate images of one shape each in ``root``, or reuse them if they exist: a test of zero-shot classification.

    Form is the only cue to the class; the eight classes are equally frequent. Scenes are as the easy ones of
    :func:`write_shapes`. The layout is ``images/000000.png`` and ``labels.csv`` with the columns ``file`` and
    ``label``, as `pe-dense zeroshot --labels` reads it.

    Args:
        root, image_size, seed: see :func:`write_shapes`.
        num_images: number of images.

    Returns:
        The resolved root.

    Raises:
        ValueError, FileExistsError: see :func:`write_shapes`.
    """
    spec = dict(num_images=num_images, image_size=image_size, seed=seed)
    check_lowest(spec, dict(num_images=1, image_size=MIN_IMAGE_SIZE, seed=0))
    return write_once(root, dict(version=FORMS_VERSION, **spec), kind="shapes_forms", write=_write_forms)


def _write_forms(draft: Path, spec: dict) -> None:
    (draft / "images").mkdir()
    progress = Progress(spec["num_images"], kind="shapes_forms", unit="images")
    lines = ["file,label\n"]
    for index in range(spec["num_images"]):
        label = index % len(CLASSES)
        rng = np.random.default_rng((spec["seed"], _FORMS_SEED, index))
        scene = draw_scene(rng, spec["image_size"], "easy", labels=[label])
        name = f"images/{index:06d}.png"
        write_png(draft / name, scene.image[..., ::-1])
        lines.append(f"{name},{CLASSES[label]}\n")
        progress.advance()
    (draft / "labels.csv").write_text("".join(lines))


def _write_maps(draft: Path, split: str, name: str, scene: Scene) -> None:
    millimeters = np.rint(1000 * scene.depth).astype(np.uint16)
    write_png(draft / split / name, scene.image[..., ::-1])
    write_png(draft / "semantic" / split / name, scene.semantic)
    write_png(draft / "depth" / split / name, millimeters)


def annotate(scene: Scene, image_id: int) -> list[dict]:
    """Create COCO annotations of a scene's N shapes, without ``id``; masks are compressed run-length codes."""
    annotations = []
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        code = mask_api.encode(np.asfortranarray(mask, np.uint8))
        annotations.append(
            dict(
                image_id=image_id,
                category_id=CATEGORY_IDS[label],
                bbox=mask_api.toBbox(code).tolist(),
                area=int(mask_api.area(code)),
                segmentation=dict(size=code["size"], counts=code["counts"].decode("ascii")),
                iscrowd=0,
            )
        )
    return annotations


def federate(rng: np.random.Generator, annotations: list[dict]) -> tuple[list[dict], dict]:
    """Remove annotations of one image as in a federated data set.

    Some of the categories present are not verified and lose all annotations; some with several instances are only
    partly annotated. About half of the absent categories are verified to be absent.

    Args:
        rng: random number generator.
        annotations: all annotations of the image.

    Returns:
        The annotations kept, and the image's fields ``neg_category_ids`` (verified absent) and
        ``not_exhaustive_category_ids`` (partly annotated). The two lists are disjoint; a category that is in neither
        and has no annotation is unverified.
    """
    counts = Counter(annotation["category_id"] for annotation in annotations)
    quota, negative, partial = {}, [], []
    for category in CATEGORY_IDS:
        count = counts[category]
        if count == 0:
            if rng.random() < _VERIFIED_ABSENT:
                negative.append(category)
        elif rng.random() < _VERIFIED_PRESENT:
            quota[category] = count
            if count > 1 and rng.random() >= _EXHAUSTIVE:
                quota[category] = int(rng.integers(1, count))
                partial.append(category)
    kept = []
    for annotation in annotations:
        category = annotation["category_id"]
        if quota.get(category, 0) > 0:
            quota[category] -= 1
            kept.append(annotation)
    return kept, dict(neg_category_ids=negative, not_exhaustive_category_ids=partial)


def coco_file(images: list[dict], annotations: list[dict]) -> dict:
    """Create the content of a COCO instance file; ids count from 1, since COCO's evaluation uses 0 for unmatched."""
    categories = [
        dict(id=category, name=name, supercategory="shape")
        for category, name in zip(CATEGORY_IDS, CLASSES, strict=True)
    ]
    return dict(images=images, annotations=_numbered(annotations), categories=categories)


def lvis_file(images: list[dict], annotations: list[dict], frequencies: dict[int, str]) -> dict:
    """Create the content of an LVIS v1 file.

    Args:
        images: entries with ``neg_category_ids`` and ``not_exhaustive_category_ids``.
        annotations: annotations of all images, after :func:`federate`.
        frequencies: ``r``, ``c`` or ``f`` of each category id, see :func:`frequencies`.
    """
    images_with = _images_with(annotations)
    instances = Counter(annotation["category_id"] for annotation in annotations)
    categories = [
        {
            "id": category,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "def": f"a textured {name}",
            "frequency": frequencies[category],
            "image_count": images_with[category],
            "instance_count": instances[category],
        }
        for category, name in zip(CATEGORY_IDS, CLASSES, strict=True)
    ]
    return dict(images=images, annotations=_numbered(annotations), categories=categories)


def frequencies(num_images: int, annotations: list[dict]) -> dict[int, str]:
    """Return the LVIS frequency of each category id in the training images.

    Rare (``r``) is a category annotated in up to 22 % of the images, common (``c``) in up to 40 %, frequent
    (``f``) in more.
    """
    images_with = _images_with(annotations)

    def frequency(category: int) -> str:
        share = images_with[category] / num_images
        return "r" if share <= RARE_SHARE else "c" if share <= COMMON_SHARE else "f"

    return {category: frequency(category) for category in CATEGORY_IDS}


def _images_with(annotations: list[dict]) -> Counter:
    """Count the images in which each category is annotated."""
    pairs = {(annotation["category_id"], annotation["image_id"]) for annotation in annotations}
    return Counter(category for category, _ in pairs)


def _numbered(annotations: list[dict]) -> list[dict]:
    return [dict(id=number, **annotation) for number, annotation in enumerate(annotations, start=1)]
