"""Transforms that load videos."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement

from pe_dense.datasets.davis import read_mask
from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import ImageError, read_image


@TRANSFORMS.register_module()
class LoadVideo:
    """Load and resize all frames of a video, and load its first mask.

    The published protocol uses 480 px and multiples of 64, for patch sizes of 8 and 16, which do not divide into
    patches of 14 px. Resampling the patch embedding would change the features, so for patch size 14 use frames of
    476 px (34 patches) and a ``divisor`` of 14.

    Args:
        short_side: size to which the shorter side of the frames is resized, in pixels.
        divisor: the other side is rounded down to a multiple of this.

    Raises:
        ValueError: if ``1 <= divisor <= short_side`` does not hold, or a frame cannot be read.
    """

    def __init__(self, *, short_side: int = 480, divisor: int = 64):
        if not 1 <= divisor <= short_side:
            raise InputError(f"1 <= divisor <= short_side is required, got divisor={divisor}, short_side={short_side}")
        self.short_side, self.divisor = short_side, divisor

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Compute the size (H, W) after resizing frames of size (H, W)."""
        short, long = sorted(size)
        long = self.short_side * long // short // self.divisor * self.divisor
        return (long, self.short_side) if size[0] > size[1] else (self.short_side, long)

    def __call__(self, video: dict) -> dict:
        """Load an item of :class:`~pe_dense.tracking.DavisDataset`.

        Returns:
            ``inputs``, RGB frames (T, 3, H, W) uint8, and ``data_samples`` with ``first_mask`` (H, W) uint8 at the
            original size and the fields of the item as metainfo.
        """
        height, width = self.size_of(video["size"])
        frames = [cv2.resize(read_frame(path), (width, height)) for path in video["frames"]]  # bilinear
        sample = BaseDataElement(metainfo=video, first_mask=read_mask(video["masks"][0]))
        return dict(inputs=torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), data_samples=sample)


def read_frame(path: str) -> np.ndarray:
    """Read a frame as stored, RGB (H, W, 3) uint8; EXIF orientation is ignored, as masks match
    the stored pixels.

    Raises:
        InputError: if the file cannot be read or is truncated.
    """
    try:
        return np.asarray(read_image(path, ignore_orientation=True))
    except (ImageError, FileNotFoundError) as error:
        raise InputError(f"frame {path} can't be read: {error}") from error
