"""Readers of the data sets of training-free evaluations, and generated data in the same formats."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from mmseg.registry import DATASETS as MMSEG_DATASETS
from PIL import Image
from torch import Tensor

from pe_dense.datasets.annotations import read_annotations, read_json
from pe_dense.datasets.synthetic import CLASSES, ShapesSegmentationDataset, write_shapes
from pe_dense.datasets.synthetic.cache import write_once, write_png
from pe_dense.datasets.synthetic.scene import draw_scene
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import decode, read_image
from pe_dense.utils.rng import sample_seed
from pe_dense.visualization.features import to_input

SHAPES = "shapes"


@dataclass(frozen=True)
class SegmentationData:
    """Images with label maps.

    Attributes:
        train, val: (image path, label map path).
        classes: names of the classes.
        palette: color of each class, RGB.
        zero_is_ignored: label 0 is not a class and the others are numbered from 1 (ADE20k).
    """

    train: list[tuple[Path, Path]]
    val: list[tuple[Path, Path]]
    classes: tuple[str, ...]
    palette: list
    zero_is_ignored: bool = False

    def read_labels(self, path: Path) -> np.ndarray:
        """Read a label map (H, W) uint8; 255 is ignored."""
        labels = np.array(decode(path, ignore_orientation=True))
        if labels.ndim != 2:
            raise InputError(f"{path} is not a label map: it has {labels.shape[-1]} channels")
        return (labels - 1).astype(np.uint8) if self.zero_is_ignored else labels.astype(np.uint8)


def segmentation_data(name: str, root: Path, generator: dict | None = None) -> SegmentationData:
    """List the files of a segmentation data set.

    Args:
        name: 'shapes' (generated in ``root`` if missing), 'voc', 'ade20k' or 'cityscapes'.
        root: its folder.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.write_shapes`.

    Raises:
        InputError: if files are missing.
    """
    splits = {}
    if name == SHAPES:
        root = write_shapes(root, **(generator or {}))
        info = ShapesSegmentationDataset.METAINFO
        for split in ("train", "val"):
            splits[split] = [(path, root / "semantic" / split / path.name) for path in sorted((root / split).iterdir())]
        return SegmentationData(**splits, classes=info["classes"], palette=info["palette"])
    info = MMSEG_DATASETS.get(_MMSEG_CLASSES[name]).METAINFO
    if name == "voc":
        masks = root / "SegmentationClassAug"
        for split, lists in dict(train=("trainaug", "train", "aug"), val=("val",)).items():
            files = [root / "ImageSets/Segmentation" / f"{stem}.txt" for stem in lists]
            found = files[:1] if files[0].exists() else files[1:] or files
            stems = [line.strip() for file in found for line in _lines(file)]
            folder = root / "SegmentationClass" if split == "val" else masks
            splits[split] = [(root / f"JPEGImages/{stem}.jpg", folder / f"{stem}.png") for stem in stems if stem]
    elif name == "ade20k":
        for split, folder in dict(train="training", val="validation").items():
            images = sorted((root / "images" / folder).glob("*.jpg"))
            splits[split] = [(path, root / "annotations" / folder / f"{path.stem}.png") for path in images]
    else:
        for split in ("train", "val"):
            images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
            splits[split] = [
                (
                    path,
                    root
                    / "gtFine"
                    / split
                    / path.parent.name
                    / path.name.replace("_leftImg8bit", "_gtFine_labelTrainIds"),
                )
                for path in images
            ]
    if empty := [split for split, items in splits.items() if not items]:
        raise InputError(f"{root} has no images of the split {empty[0]}")
    return SegmentationData(
        **splits, classes=info["classes"], palette=info["palette"], zero_is_ignored=name == "ade20k"
    )


_MMSEG_CLASSES = dict(voc="PascalVOCDataset", ade20k="ADE20KDataset", cityscapes="CityscapesDataset")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"list {path} cannot be read: {error.strerror}") from error


def object_boxes(name: str, root: Path, generator: dict | None = None) -> list[tuple[Path, np.ndarray]]:
    """List images with boxes (N, 4), N at least 1: x0, y0, x1, y1 in pixels.

    Args:
        name: 'shapes', 'voc07', 'voc12' (trainval, difficult objects included) or 'coco20k' (the images that
            ``coco_20k_filenames.txt`` lists, as in LOST, without crowds).
        root: folder of the data set.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.write_shapes`.

    Raises:
        InputError: if files are missing or invalid.
    """
    if name == SHAPES:
        root = write_shapes(root, **(generator or {}))
        return _coco_boxes(root / "annotations/instances_val.json", root / "val", None)
    if name == "coco20k":
        wanted = {Path(line.strip()).name for line in _lines(root / "coco_20k_filenames.txt") if line.strip()}
        return _coco_boxes(root / "annotations/instances_train2014.json", root / "train2014", wanted)
    found = []
    for stem in (line.strip() for line in _lines(root / "ImageSets/Main/trainval.txt")):
        if stem:
            found.append((root / f"JPEGImages/{stem}.jpg", _voc_boxes(root / f"Annotations/{stem}.xml")))
    return [(path, boxes) for path, boxes in found if len(boxes)]


def _voc_boxes(path: Path) -> np.ndarray:
    try:
        content = ElementTree.parse(path)
        boxes = [
            [float(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for item in content.iter("object")
        ]
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not an annotation of PASCAL VOC: {error}") from error
    # Pixels are numbered from 1 and both corners are inside of the box.
    return np.array(boxes).reshape(-1, 4) - [1, 1, 0, 0]


def _coco_boxes(annotations: Path, images: Path, wanted: set[str] | None) -> list[tuple[Path, np.ndarray]]:
    content = read_annotations(annotations)
    boxes: dict[int, list] = {}
    for item in content["annotations"]:
        if not item.get("iscrowd"):
            x, y, width, height = item["bbox"]
            boxes.setdefault(item["image_id"], []).append([x, y, x + width, y + height])
    return [
        (images / image["file_name"], np.array(boxes[image["id"]], float))
        for image in content["images"]
        if image["id"] in boxes and (wanted is None or image["file_name"] in wanted)
    ]


@dataclass(frozen=True)
class KeypointImage:
    """An image of a pair: path, box (x0, y0, x1, y1) of the object, and keypoints (K, 3): x, y, visible."""

    path: Path
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    keypoints: Tensor


@dataclass(frozen=True)
class KeypointPair:
    """A pair of images of one category.

    Attributes:
        category: its name.
        view: difference of the viewpoints, 0, 1 or 2.
        source, target: the images; their keypoints have the same numbers.
    """

    category: str
    view: int
    source: KeypointImage
    target: KeypointImage


def spair_pairs(root: Path, split: str = "test", per_class: int | None = None, seed: int = 42) -> list[KeypointPair]:
    """Read pairs of SPair-71k (arXiv 1908.10543).

    Args:
        root: folder ``SPair-71k``; colons in file names may have been replaced.
        split: 'trn', 'val' or 'test'.
        per_class: number of pairs to draw of each class without replacement; None for all.
        seed: of the draw. Pairs are sorted by name before, so that the draw does not depend on the file system.

    Raises:
        InputError: if there are no pairs, or a file is invalid.
    """
    files = sorted((root / "PairAnnotation" / split).glob("*.json"))
    if not files:
        raise InputError(f"{root / 'PairAnnotation' / split} contains no pairs (*.json)")
    by_class: dict[str, list[dict]] = {}
    for file in files:
        pair = read_json(file)
        by_class.setdefault(pair["category"], []).append(pair)
    pairs, images = [], {}
    for category, items in sorted(by_class.items()):
        if per_class is not None and len(items) > per_class:
            items = random.Random(seed).sample(items, per_class)
        for item in items:
            ends = [_keypoint_image(root, category, item, end, images) for end in ("src", "trg")]
            count = max(len(end.keypoints) for end in ends)
            source, target = (_extended(end, count) for end in ends)
            pairs.append(KeypointPair(category, int(item["viewpoint_variation"]), source, target))
    return pairs


def _keypoint_image(root: Path, category: str, pair: dict, end: str, read: dict) -> KeypointImage:
    name = pair[f"{end}_imname"]
    path = root / "ImageAnnotation" / category / f"{Path(name).stem}.json"
    if path not in read:
        content = read_json(path)
        kps = {int(number): point for number, point in content["kps"].items()}
        rows = [[*kps[i], 1.0] if kps.get(i) else [0.0, 0.0, 0.0] for i in range(max(kps) + 1)]
        read[path] = torch.tensor(rows)
    width, height = pair[f"{end}_imsize"][:2]
    image = root / "JPEGImages" / category / name
    return KeypointImage(image, tuple(pair[f"{end}_bndbox"]), (width, height), read[path])


def _extended(image: KeypointImage, count: int) -> KeypointImage:
    """Add keypoints that are not visible up to a number of keypoints."""
    missing = torch.zeros(count - len(image.keypoints), 3)
    return KeypointImage(image.path, image.box, image.size, torch.cat([image.keypoints, missing]))


def write_shapes_pairs(
    root: Path, *, num_pairs: int = 64, image_size: int = 128, num_keypoints: int = 8, seed: int = 0
) -> Path:
    """Generate pairs of images with keypoints in the layout of SPair-71k, or reuse them if they exist.

    The second image is the first one rotated, scaled and shifted, with other brightness and noise. Keypoints are random
    points of the largest shape.

    Returns:
        the resolved root.

    Raises:
        ValueError, FileExistsError: see :func:`~pe_dense.datasets.synthetic.write_shapes`.
    """
    spec = dict(num_pairs=num_pairs, image_size=image_size, num_keypoints=num_keypoints, seed=seed)
    return write_once(root, dict(version=1, **spec), kind="shapes_pairs", write=_write_pairs)


def _write_pairs(draft: Path, spec: dict) -> None:
    size = spec["image_size"]
    (draft / "PairAnnotation/test").mkdir(parents=True)
    for index in range(spec["num_pairs"]):
        # The 2 at the end: NumPy's seed sequence does not tell trailing zeros apart.
        rng = np.random.default_rng((spec["seed"], index, 2))
        scene = draw_scene(rng, size, "easy")
        shape = int(np.argmax([mask.sum() for mask in scene.masks]))
        category = CLASSES[scene.labels[shape]]
        for folder in ("JPEGImages", "ImageAnnotation"):
            (draft / folder / category).mkdir(parents=True, exist_ok=True)
        rows, columns = np.nonzero(scene.masks[shape])
        chosen = rng.permutation(len(rows))[: spec["num_keypoints"]]
        points = np.stack([columns[chosen], rows[chosen]], axis=1).astype(float)
        turn = cv2.getRotationMatrix2D(((size - 1) / 2,) * 2, rng.uniform(-40, 40), rng.uniform(0.8, 1.25))
        turn[:, 2] += rng.uniform(-0.06, 0.06, 2) * size
        second = cv2.warpAffine(scene.image, turn, (size, size), borderMode=cv2.BORDER_REFLECT).astype(float)
        second = rng.uniform(0.8, 1.2) * second + rng.normal(0, 6, second.shape)
        mask = cv2.warpAffine(scene.masks[shape].astype(np.uint8), turn, (size, size))
        ends = []
        for end, (image, object_mask, places) in enumerate(
            ((scene.image, scene.masks[shape], points), (second, mask, points @ turn[:, :2].T + turn[:, 2]))
        ):
            name = f"{index:04d}{'ab'[end]}"
            inside = ((places >= 0) & (places <= size - 1)).all(axis=1)
            kps = {str(i): np.rint(place).astype(int).tolist() if inside[i] else None for i, place in enumerate(places)}
            x, y, width, height = cv2.boundingRect(object_mask.astype(np.uint8))
            box = [x, y, x + width, y + height]
            write_png(draft / "JPEGImages" / category / f"{name}.png", image.clip(0, 255).astype(np.uint8)[..., ::-1])
            note = dict(filename=f"{name}.png", image_width=size, image_height=size, bndbox=box, kps=kps)
            (draft / "ImageAnnotation" / category / f"{name}.json").write_text(json.dumps(note))
            ends.append((f"{name}.png", box))
        pair = dict(
            category=category, viewpoint_variation=0, filename=f"{index:06d}-{index:04d}a-{index:04d}b_{category}"
        )
        for end, (name, box) in zip(("src", "trg"), ends, strict=True):
            pair |= {f"{end}_imname": name, f"{end}_bndbox": box, f"{end}_imsize": [size, size, 3]}
        (draft / f"PairAnnotation/test/{pair['filename']}.json").write_text(json.dumps(pair))


def load_labeled(
    item: tuple[int, tuple[Path, Path]],
    data: SegmentationData,
    side: int,
    mean: tuple,
    std: tuple,
    augment: bool,
    label_side: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Read an image and its label map, and squash both to squares.

    Args:
        item: number of the image, by which augmentations are drawn, and both paths.
        data: the data set.
        side: of the image in pixels.
        mean, std: normalization.
        augment: crop and jitter.
        label_side: of the label map; by default that of the image.

    Returns:
        (3, side, side), and (label_side, label_side) uint8.
    """
    number, (path, label_path) = item
    image, labels = read_image(path), Image.fromarray(data.read_labels(label_path))
    if augment:
        image, labels = _augment(image, labels, number)
    image = image.resize((side, side), Image.Resampling.BILINEAR)
    labels = labels.resize((label_side or side,) * 2, Image.Resampling.NEAREST)
    return to_input(image, mean, std)[0], torch.from_numpy(np.array(labels))


def _augment(image: Image.Image, labels: Image.Image, number: int) -> tuple[Image.Image, Image.Image]:
    """Random resized crop and color jitter of Hummingbird's memory, from a seed of the image's number."""
    from torchvision.transforms import RandomResizedCrop, functional

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sample_seed(0, number) % 2**63)
        top, left, height, width = RandomResizedCrop.get_params(image, [0.5, 2.0], [3 / 4, 4 / 3])
        image, labels = (functional.crop(part, top, left, height, width) for part in (image, labels))
        for change in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            if torch.rand(()) < 0.5:
                image = change(image, float(torch.empty(()).uniform_(0.9, 1.1)))
        if torch.rand(()) < 0.5:
            image = functional.adjust_hue(image, float(torch.empty(()).uniform_(-0.1, 0.1)))
    return image, labels
