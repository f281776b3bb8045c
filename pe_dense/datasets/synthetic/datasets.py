"""The `shapes` data as mmdet data sets that generate their files on first use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset, NYUDataset

from pe_dense.datasets.coco import CocoDataset
from pe_dense.datasets.davis import DavisDataset, write_mask
from pe_dense.datasets.lvis import LVISDataset
from pe_dense.datasets.synthetic.build import write_shapes
from pe_dense.datasets.synthetic.cache import Progress, check_lowest, write_once
from pe_dense.datasets.synthetic.scene import MIN_IMAGE_SIZE
from pe_dense.datasets.synthetic.shapes import CLASSES
from pe_dense.datasets.synthetic.video import draw_video
from pe_dense.registry import DATASETS
from pe_dense.utils.image import write_picture

_PALETTE = [
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (188, 189, 34),
]


class _Generated:
    """Mixin that generates the data before the annotation file is read."""

    METAINFO = dict(classes=CLASSES, palette=_PALETTE)

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


_MAP_PALETTE = [(40, 40, 40), *_PALETTE]  # the background first


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

    Haze, occlusion and shadows are the cues for depth; the background is a slanted plane behind all shapes.
    ``data_prefix=dict(img_path='train', depth_map_path='depth/train')``.
    """

    METAINFO = dict(classes=("depth",), palette=_MAP_PALETTE[:1])


# Increment it whenever the same arguments would generate different data.
VERSION = 1


def write_shapes_video(
    root: str | os.PathLike, *, num_videos: int = 12, num_frames: int = 24, image_size: int = 128, seed: int = 0
) -> Path:
    """Generate the videos in ``root``, or reuse them if they exist.

    The layout is DAVIS's: ``ImageSets/2017/val.txt``, ``JPEGImages/480p/<video>/<frame>.jpg`` (of ``image_size``
    pixels, whatever the name says) and ``Annotations/480p/<video>/<frame>.png``. They are written atomically, see
    :func:`pe_dense.datasets.synthetic.cache.write_once`. The first videos are the same whatever their number.

    Args:
        root, image_size, seed: see :func:`pe_dense.datasets.synthetic.build.write_shapes`.
        num_videos: number of videos, 1 or more.
        num_frames: frames of each, 3 or more.

    Returns:
        The resolved root.

    Raises:
        ValueError, FileExistsError: see :func:`~pe_dense.datasets.synthetic.build.write_shapes`.
    """
    spec = dict(num_videos=num_videos, num_frames=num_frames, image_size=image_size, seed=seed)
    check_lowest(spec, dict(num_videos=1, num_frames=3, image_size=MIN_IMAGE_SIZE, seed=0))
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
        video = draw_video(rng, num_frames=spec["num_frames"], image_size=spec["image_size"])
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
