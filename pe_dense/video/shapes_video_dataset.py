"""Generated videos of moving shapes, in DAVIS's layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pe_dense.datasets.generated import Progress, check_lowest, write_once
from pe_dense.datasets.shapes_scene import MIN_IMAGE_SIZE
from pe_dense.registry import DATASETS
from pe_dense.video.davis_dataset import DavisDataset
from pe_dense.video.drawing import write_picture
from pe_dense.video.mask_file import write_mask
from pe_dense.video.moving_shapes import draw_video

# Raise it whenever the same arguments would give other data.
VERSION = 1


def write_shapes_video(
    root: str | os.PathLike, *, num_videos: int = 12, num_frames: int = 24, image_size: int = 128, seed: int = 0
) -> Path:
    """Make the videos in ``root``, or leave them as they are if they are there already.

    The layout is DAVIS's: ``ImageSets/2017/val.txt``, ``JPEGImages/480p/<video>/<frame>.jpg`` (of ``image_size``
    pixels, whatever the name says) and ``Annotations/480p/<video>/<frame>.png``. They appear all at once, see
    :func:`pe_dense.datasets.generated.write_once`. The first videos are the same whatever their number.

    Args:
        root: folder to make; may exist if empty.
        num_videos: number of videos.
        num_frames: frames of each.
        image_size: side of the square frames, in pixels.
        seed: of all randomness, 0 or more.

    Returns:
        The resolved root.

    Raises:
        ValueError: if an argument is out of range.
        FileExistsError: if ``root`` holds something else: data from other arguments, or no such data.
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
    """Moving shapes, see :func:`write_shapes_video`.

    Args:
        data_root: folder of the data; made when the list of videos is first read, if missing.
        generator: arguments of :func:`write_shapes_video` other than the root; None for its defaults.
        **kwargs: of :class:`~pe_dense.video.davis_dataset.DavisDataset`.

    Raises:
        FileExistsError: if ``data_root`` holds data from other arguments, or something else.
    """

    def __init__(self, *, data_root: str = "data/shapes_video", generator: dict | None = None, **kwargs):
        self.generator = generator or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        write_shapes_video(self.data_root, **self.generator)
        return super().load_data_list()
