"""The generated `shapes` data set on disk.

Layout of a root::

    shapes.json                              what the root was made from
    train/000000.png                         RGB images; `val` likewise, here and below
    annotations/instances_train.json         COCO
    annotations/lvis_train.json              LVIS v1, federated
    semantic/train/000000.png                uint8: 0 background, class index + 1
    depth/train/000000.png                   uint16: millimeters
"""

import json
import os
from pathlib import Path

import numpy as np

from pe_dense.datasets.synthetic.annotations import annotate, coco_file, federate, frequencies, lvis_file
from pe_dense.datasets.synthetic.cache import Progress, check_lowest, write_once, write_png
from pe_dense.datasets.synthetic.scene import MIN_IMAGE_SIZE, Scene, draw_scene

# Increment it whenever the same arguments would generate different data.
VERSION = 2

# Both differ from 0: NumPy's seed sequence does not tell trailing zeros apart.
_SPLIT_SEEDS = dict(train=1, val=2)


def write_shapes(
    root: str | os.PathLike,
    *,
    num_train: int = 400,
    num_val: int = 80,
    image_size: int = 128,
    seed: int = 0,
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

    Returns:
        The resolved root.

    Raises:
        ValueError: if an argument is out of range.
        FileExistsError: if ``root`` contains anything else, such as data generated with other arguments.
    """
    spec = dict(num_train=num_train, num_val=num_val, image_size=image_size, seed=seed)
    check_lowest(spec, dict(num_train=1, num_val=1, image_size=MIN_IMAGE_SIZE, seed=0))
    return write_once(root, dict(version=VERSION, **spec), kind="shapes", write=_write)


def _write(draft: Path, spec: dict) -> None:
    for split in _SPLIT_SEEDS:
        for folder in (split, f"semantic/{split}", f"depth/{split}"):
            (draft / folder).mkdir(parents=True)
    (draft / "annotations").mkdir()

    splits = dict(train=spec["num_train"], val=spec["num_val"])
    progress = Progress(sum(splits.values()), kind="shapes", unit="images")
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


def _write_maps(draft: Path, split: str, name: str, scene: Scene) -> None:
    millimeters = np.rint(1000 * scene.depth).astype(np.uint16)
    write_png(draft / split / name, scene.image[..., ::-1])
    write_png(draft / "semantic" / split / name, scene.semantic)
    write_png(draft / "depth" / split / name, millimeters)
