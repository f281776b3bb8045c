"""The generated `shapes` data set on disk.

Layout of a root::

    shapes.json                              what the root was made from
    train/000000.png                         RGB images; `val` likewise, here and below
    annotations/instances_train.json         COCO
    annotations/lvis_train.json              LVIS v1, federated
    semantic/train/000000.png                uint8: 0 background, class index + 1
    depth/train/000000.png                   uint16: millimetres
"""

import json
import logging
import os
import shutil
import time
import uuid
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from pe_dense.datasets.shapes_annotation import annotate, coco_file, federate, frequencies, lvis_file
from pe_dense.datasets.shapes_scene import MIN_IMAGE_SIZE, Scene, draw_scene

# Raise it whenever the same arguments would give other data.
VERSION = 2

_SPEC_FILE = "shapes.json"
# Both differ from 0: NumPy's seed sequence does not tell trailing zeros apart.
_SPLIT_SEEDS = dict(train=1, val=2)
_SECONDS_BETWEEN_REPORTS = 5.0


def write_shapes(
    root: str | os.PathLike,
    *,
    num_train: int = 400,
    num_val: int = 80,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Make the data set in ``root``, or leave it as it is if it is there already.

    The data appear under ``root`` all at once: an interrupted run leaves no half of a data set (a killed one
    leaves a hidden folder beside it, safe to delete), and of several processes that make the same data at
    once all but one drop theirs. The first images of a split are the same whatever its length.

    Args:
        root: folder to make; may exist if empty.
        num_train: number of training images.
        num_val: number of validation images.
        image_size: side of the square images, in pixels.
        seed: of all randomness, 0 or more.

    Returns:
        The resolved root.

    Raises:
        ValueError: if an argument is out of range.
        FileExistsError: if ``root`` holds something else: data from other arguments, or no such data.
    """
    lows = dict(num_train=1, num_val=1, image_size=MIN_IMAGE_SIZE, seed=0)
    spec = dict(num_train=num_train, num_val=num_val, image_size=image_size, seed=seed)
    for name, value in spec.items():
        if value < lows[name]:
            raise ValueError(f"{name} is {value}, must be at least {lows[name]}")
    spec = dict(version=VERSION, **spec)
    root = Path(root).resolve()
    if _holds(root, spec):
        return root
    # A sibling, so that the final rename stays within one file system.
    draft = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    try:
        _write(draft, spec)
        try:
            os.rename(draft, root)
        except OSError:
            if not _holds(root, spec):
                raise
            print_log(f"shapes: another process made {root}, using that", logger="current")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _holds(root: Path, spec: dict) -> bool:
    """Whether ``root`` holds the data; raises FileExistsError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _SPEC_FILE).read_text())
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{root} exists and is not a shapes folder ({_SPEC_FILE}: {error}); choose another data_root"
        ) from error
    if found != spec:
        raise FileExistsError(
            f"{root} was made from {found}, asked for is {spec}; delete it or choose another data_root"
        )
    return True


def _write(draft: Path, spec: dict) -> None:
    for split in _SPLIT_SEEDS:
        for folder in (split, f"semantic/{split}", f"depth/{split}"):
            (draft / folder).mkdir(parents=True)
    (draft / "annotations").mkdir()

    splits = dict(train=spec["num_train"], val=spec["num_val"])
    progress = _Progress(sum(splits.values()))
    for split, num_images in splits.items():
        coco_images, coco_annotations, lvis_images, lvis_annotations = [], [], [], []
        for index in range(num_images):
            rng = np.random.default_rng((spec["seed"], _SPLIT_SEEDS[split], index))
            scene = draw_scene(rng, spec["image_size"])
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
            progress.advance()
        if split == "train":
            class_frequencies = frequencies(num_images, lvis_annotations)
        lvis = lvis_file(lvis_images, lvis_annotations, class_frequencies)
        coco = coco_file(coco_images, coco_annotations)
        (draft / f"annotations/instances_{split}.json").write_text(json.dumps(coco))
        (draft / f"annotations/lvis_{split}.json").write_text(json.dumps(lvis))
    (draft / _SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n")


def _write_maps(draft: Path, split: str, name: str, scene: Scene) -> None:
    millimetres = np.rint(1000 * scene.depth).astype(np.uint16)
    _write_png(draft / split / name, scene.image[..., ::-1])
    _write_png(draft / "semantic" / split / name, scene.semantic)
    _write_png(draft / "depth" / split / name, millimetres)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    written, code = cv2.imencode(".png", pixels)
    if not written:
        raise ValueError(f"cannot encode {pixels.shape} {pixels.dtype} as {path}")
    # Written by Python, whose errors name the cause (a full disk), where cv2.imwrite only returns False.
    path.write_bytes(code.tobytes())


class _Progress:
    """Logs how far the generation is, every few seconds and at its end."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.start = self.last_report = time.monotonic()

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done < self.total and now - self.last_report < _SECONDS_BETWEEN_REPORTS:
            return
        self.last_report = now
        left = (now - self.start) / self.done * (self.total - self.done)
        print_log(
            f"shapes: {self.done}/{self.total} images, {left:.0f} s left",
            logger="current",
            level=logging.INFO,
        )
