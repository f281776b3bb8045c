"""The `shapes` data as mmdet data sets that generate their files on first use."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset, NYUDataset
from PIL import Image
from pycocotools import mask as mask_api
from torch.utils.data import Dataset

from pe_dense.datasets.captions import LabeledImages
from pe_dense.datasets.coco import CocoDataset
from pe_dense.datasets.davis import DavisDataset, write_mask
from pe_dense.datasets.lvis import LVISDataset
from pe_dense.datasets.panoptic import CocoPanopticDataset
from pe_dense.datasets.synthetic.build import write_forms, write_panoptic, write_shapes
from pe_dense.datasets.synthetic.cache import Progress, check_lowest, write_once
from pe_dense.datasets.synthetic.scene import MIN_IMAGE_SIZE, TOLD, draw_caption, name_shapes
from pe_dense.datasets.synthetic.shapes import CLASSES, PALETTE
from pe_dense.datasets.synthetic.video import draw_video
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image, write_picture


class _Generated:
    """Mixin that generates the data before the annotation file is read."""

    METAINFO = dict(classes=CLASSES, palette=PALETTE[: len(CLASSES)])

    def __init__(self, *, data_root: str = "data/shapes", generator: dict | None = None, **kwargs) -> None:
        self.generator = generator or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        # Here, not at construction: mmdet's inferencers construct data sets lazily to see the class names.
        write_shapes(self.data_root, **self.generator)
        return super().load_data_list()


@DATASETS.register_module()
class ShapesDataset(_Generated, CocoDataset):
    """Data set of the `shapes` instances, in COCO format.

    Use it like mmdet's ``CocoDataset``, with ``ann_file='annotations/instances_train.json'`` and
    ``data_prefix=dict(img='train/')``; add ``seg='semantic/train/'`` for the class maps.

    Args:
        data_root: folder of the data; made when the annotations are first read, if missing.
        generator: arguments of :func:`pe_dense.datasets.synthetic.write_shapes` other than the root; None for its
            defaults.
        **kwargs: arguments of ``CocoDataset``.

    Raises:
        FileExistsError: if ``data_root`` contains anything else, such as data generated with other arguments.
    """


@DATASETS.register_module()
class ShapesLVISDataset(_Generated, LVISDataset):
    """Data set of the `shapes` instances, in LVIS v1 format with federated annotations.

    Use it like :class:`pe_dense.datasets.lvis.LVISDataset`, with ``ann_file='annotations/lvis_train.json'`` and
    ``data_prefix=dict(img='')``: image names include the split. Arguments and errors are those of
    :class:`ShapesDataset`.
    """


@DATASETS.register_module()
class ShapesPanopticDataset(_Generated, CocoPanopticDataset):
    """Data set of the `shapes` scenes in COCO's panoptic format: the eight shapes are things, the background is stuff.

    Use it with ``ann_file='panoptic/panoptic_train.json'`` and ``data_prefix=dict(img='train/',
    seg='panoptic/panoptic_train/')``. Arguments and errors are those of :class:`ShapesDataset`.
    """

    METAINFO = dict(
        classes=(*CLASSES, "background"), thing_classes=CLASSES, stuff_classes=("background",), palette=PALETTE
    )

    def load_data_list(self) -> list[dict]:
        write_panoptic(write_shapes(self.data_root, **self.generator))
        return super().load_data_list()


_MAP_PALETTE = [PALETTE[-1], *PALETTE[:-1]]  # the background first


class _GeneratedMaps(_Generated):
    """Mixin of data sets that list folders of maps."""

    def __init__(self, **options) -> None:
        super().__init__(img_suffix=".png", **options)


@DATASETS.register_module()
class ShapesSegmentationDataset(_GeneratedMaps, BaseSegDataset):
    """Data set of the `shapes` label maps: the background, then the eight shapes.

    Args:
        data_root: folder of the data; made on first use, if missing.
        generator: arguments of :func:`pe_dense.datasets.synthetic.write_shapes` other than the root; None for its
            defaults.
        options: arguments of ``BaseSegDataset``, with ``data_prefix=dict(img_path='train',
            seg_map_path='semantic/train')``.

    Raises:
        FileExistsError: if ``data_root`` contains anything else, such as data generated with other arguments.
    """

    METAINFO = dict(classes=("background", *CLASSES), palette=_MAP_PALETTE)


@DATASETS.register_module()
class ShapesDepthDataset(_GeneratedMaps, NYUDataset):
    """Data set of the `shapes` depth maps, in millimeters; see :class:`ShapesSegmentationDataset`.

    Haze, occlusion and shadows are the cues for depth, in perspective also size; the background is a slanted plane
    behind all shapes.
    ``data_prefix=dict(img_path='train', depth_map_path='depth/train')``.
    """

    METAINFO = dict(classes=("depth",), palette=_MAP_PALETTE[:1])


# Increment it whenever the same arguments would generate different data.
VERSION = 1


def write_shapes_video(
    root: str | os.PathLike,
    *,
    num_videos: int = 12,
    num_frames: int = 24,
    image_size: int = 128,
    seed: int = 0,
    same_surface: bool = False,
) -> Path:
    """Generate the videos in ``root``, or reuse them if they exist.

    The layout is DAVIS's: ``ImageSets/2017/val.txt``, ``JPEGImages/480p/<video>/<frame>.jpg`` (of ``image_size``
    pixels, whatever the name says) and ``Annotations/480p/<video>/<frame>.png``. They are written atomically, see
    :func:`pe_dense.datasets.synthetic.cache.write_once`. The first videos are the same whatever their number.

    Args:
        root, image_size, seed: see :func:`pe_dense.datasets.synthetic.build.write_shapes`.
        num_videos: number of videos, 1 or more.
        num_frames: frames of each, 3 or more.
        same_surface: see :func:`~pe_dense.datasets.synthetic.video.draw_video`.

    Returns:
        The resolved root.

    Raises:
        ValueError, FileExistsError: see :func:`~pe_dense.datasets.synthetic.build.write_shapes`.
    """
    spec = dict(num_videos=num_videos, num_frames=num_frames, image_size=image_size, seed=seed)
    check_lowest(spec, dict(num_videos=1, num_frames=3, image_size=MIN_IMAGE_SIZE, seed=0))
    if same_surface:  # only then, so that data generated before there was a choice stay valid
        spec["same_surface"] = True
    return write_once(root, dict(version=VERSION, **spec), kind="shapes_video", write=_write)


def _write(draft: Path, spec: dict) -> None:
    progress = Progress(spec["num_videos"], kind="shapes_video", unit="videos")
    names = [f"shapes-{index:03d}" for index in range(spec["num_videos"])]
    for index, name in enumerate(names):
        frames, masks = (draft / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        # The 1 at the end: NumPy's seed sequence does not tell trailing zeros apart.
        rng = np.random.default_rng((spec["seed"], index, 1))
        options = {name: spec[name] for name in ("num_frames", "image_size", "same_surface") if name in spec}
        video = draw_video(rng, **options)
        for number, (image, labels) in enumerate(video):
            write_picture(frames / f"{number:05d}.jpg", image)
            write_mask(masks / f"{number:05d}.png", labels)
        progress.advance()
    lists = draft / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names))


@DATASETS.register_module()
class ShapesVideoDataset(DavisDataset):
    """Data set of videos of moving shapes, see :func:`write_shapes_video`.

    Args:
        data_root: folder of the data; made when the list of videos is first read, if missing.
        generator: arguments of :func:`write_shapes_video` other than the root; None for its defaults.
        **kwargs: arguments of :class:`~pe_dense.datasets.davis.DavisDataset`.

    Raises:
        FileExistsError: if ``data_root`` contains anything else, such as data generated with other arguments.
    """

    def __init__(self, *, data_root: str = "data/shapes_video", generator: dict | None = None, **kwargs):
        self.generator = generator or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        write_shapes_video(self.data_root, **self.generator)
        return super().load_data_list()


@DATASETS.register_module()
class ShapesCaptionDataset(Dataset):
    """Crops of the `shapes` scenes, each with a caption of what the crop shows.

    The crop, whether it is mirrored, and the caption are drawn each time, by generators that are seeded for each
    sample; images are kept in memory once they are read. Captions of whole scenes are in
    ``annotations/captions_train.jsonl``, see :class:`~pe_dense.datasets.captions.CaptionTable`.

    Args:
        pipeline: transforms of a dict with ``image``, a Pillow image in RGB; the last makes a tensor of it.
        data_root: folder of the data; made if missing.
        split: 'train' or 'val'.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.write_shapes` other than the root.
        crop_area: smallest share of the scene that a crop covers; 1 for whole scenes.
        focus: share of the crops that are placed around a random shape.
        context: longest side of such a crop, in sides of the shape.
        flip: probability of mirroring.
        rotate: whether crops are turned by a random multiple of 90 degrees.
        told: probabilities of what captions tell besides forms, see
            :func:`~pe_dense.datasets.synthetic.scene.draw_caption`.

    Raises:
        ValueError: if ``crop_area`` is not in (0, 1], ``focus`` or ``flip`` not in [0, 1], ``context`` below 1, for
            another split, or other names in ``told``.
        FileExistsError: if ``data_root`` contains anything else, such as data generated with other arguments.
    """

    metainfo: dict = {}

    def __init__(
        self,
        pipeline: Sequence[dict],
        data_root: str = "data/shapes",
        split: str = "train",
        generator: dict | None = None,
        crop_area: float = 0.08,
        focus: float = 0.5,
        context: float = 3.0,
        flip: float = 0.5,
        rotate: bool = False,
        told: Mapping[str, float] = TOLD,
    ):
        if set(told) != set(TOLD):
            raise InputError(f"told has the names {', '.join(TOLD)}, got {', '.join(told)}")
        if not 0.0 < crop_area <= 1.0 or not 0.0 <= focus <= 1.0 or not 0.0 <= flip <= 1.0 or context < 1.0:
            raise InputError(
                "crop_area is in (0, 1], focus and flip are in [0, 1], context is at least 1, got "
                f"{crop_area}, {focus}, {flip} and {context}"
            )
        if split not in ("train", "val"):
            raise InputError(f"split {split!r} is not 'train' or 'val'")
        self.root = write_shapes(data_root, **(generator or {}))
        self.split, self.crop_area, self.focus, self.flip = split, crop_area, focus, flip
        self.context, self.rotate = context, rotate
        self.told = told
        self.pipeline = Compose(pipeline)
        content = json.loads((self.root / f"annotations/instances_{split}.json").read_text())
        self.files = [image["file_name"] for image in content["images"]]
        self._images: dict[int, np.ndarray] = {}
        self.shapes: list[list[dict]] = [[] for _ in self.files]
        for shape in content["annotations"]:
            self.shapes[shape["image_id"]].append(shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        """What the pipeline makes of ``image``, with ``caption``, ``path`` and an empty ``skipped``."""
        path = self.root / self.split / self.files[index]
        if index not in self._images:
            self._images[index] = np.asarray(read_image(path))
        image, shapes = self._images[index], self.shapes[index]
        masks = mask_api.decode([shape["segmentation"] for shape in shapes]).astype(bool).transpose(2, 0, 1)
        labels, pixels = ([shape[key] for shape in shapes] for key in ("category_id", "area"))
        if random.random() < self.focus:
            rows, columns = _crop_around(random.choice(shapes)["bbox"], image.shape[0], self.context)
        else:
            rows, columns = _draw_crop(*image.shape[:2], self.crop_area)
        image, masks = image[rows, columns], masks[:, rows, columns]
        if random.random() < self.flip:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
        if self.rotate:
            turns = random.randrange(4)
            image, masks = np.rot90(image, turns), np.rot90(masks, turns, axes=(1, 2))
        named = name_shapes(image, masks, [label - 1 for label in labels], pixels)
        caption = draw_caption(np.random.default_rng(random.getrandbits(64)), named, self.told)
        item = self.pipeline(dict(image=Image.fromarray(np.ascontiguousarray(image))))
        return dict(item, caption=caption, path=str(path), skipped="")


def _draw_crop(height: int, width: int, smallest: float) -> tuple[slice, slice]:
    """Rows and columns of a crop: area uniform between ``smallest`` and all, aspect between 3:4 and 4:3."""
    area, aspect = random.uniform(smallest, 1), np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    rows = max(1, min(height, round((area * height * width / aspect) ** 0.5)))
    columns = max(1, min(width, round((area * height * width * aspect) ** 0.5)))
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)
    return slice(top, top + rows), slice(left, left + columns)


def _crop_around(box: Sequence[float], size: int, context: float) -> tuple[slice, slice]:
    """Rows and columns of a square crop that contains a box (x, y, width, height) of a scene of ``size`` pixels, up to
    ``context`` times as large as its longer side.
    """
    left, top, width, height = (int(value) for value in box)
    longer = max(width, height)
    side = random.randint(longer, min(int(context * longer), size))

    def place(start: int, length: int) -> slice:
        first = random.randint(max(0, start + length - side), min(start, size - side))
        return slice(first, first + side)

    return place(top, height), place(left, width)


@DATASETS.register_module()
class ShapesFormDataset(LabeledImages):
    """Images of one shape each, equally many of the eight forms: a test of zero-shot classification.

    Args:
        pipeline: see :class:`ShapesCaptionDataset`.
        data_root: folder of the data; made if missing.
        generator: arguments of :func:`~pe_dense.datasets.synthetic.build.write_forms` other than the root.

    Raises:
        FileExistsError: if ``data_root`` contains anything else, such as data generated with other arguments.
    """

    def __init__(self, pipeline: Sequence[dict], data_root: str = "data/shapes_forms", generator: dict | None = None):
        root = write_forms(data_root, **(generator or {}))
        super().__init__("labels.csv", pipeline, data_root=root)
