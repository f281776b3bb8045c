"""Reading a video's frames."""

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
    """Read and resize all frames of a video, and read its first mask.

    The published protocol has 480 px and multiples of 64, for towers of patch 8 and 16. Neither goes with patches of
    14 px: towers of such patches keep their patch embedding, which resampling would change, and see frames of 476 px
    (34 patches) whose other side is a multiple of 14.

    Args:
        short_side: to which the frames' shorter side is resized, in pixels.
        divisor: the other side is rounded down to a multiple of this.

    Raises:
        ValueError: if a number is below 1, ``short_side`` below ``divisor``, or a frame can't be read.
    """

    def __init__(self, *, short_side: int = 480, divisor: int = 64):
        if not 1 <= divisor <= short_side:
            raise InputError(f"divisor is {divisor} and short_side {short_side}, must be 1 <= divisor <= short_side")
        self.short_side, self.divisor = short_side, divisor

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) after resizing frames of (H, W)."""
        short, long = sorted(size)
        long = self.short_side * long // short // self.divisor * self.divisor
        return (long, self.short_side) if size[0] > size[1] else (self.short_side, long)

    def __call__(self, video: dict) -> dict:
        """Load an item of :class:`~pe_dense.tracking.DavisDataset`.

        Returns:
            ``inputs``, RGB frames (T, 3, H, W) uint8, and ``data_samples`` with ``first_mask`` (H, W) uint8 of the
            original size; the item's fields are its metainfo.
        """
        height, width = self.size_of(video["size"])
        frames = [cv2.resize(read_frame(path), (width, height)) for path in video["frames"]]  # bilinear
        sample = BaseDataElement(metainfo=video, first_mask=read_mask(video["masks"][0]))
        return dict(inputs=torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), data_samples=sample)


def read_frame(path: str) -> np.ndarray:
    """Read a frame as stored, RGB (H, W, 3) uint8; its masks are of the stored pixels.

    Raises:
        InputError: if it can't be read, or is cut short.
    """
    try:
        return np.asarray(read_image(path, ignore_orientation=True))
    except (ImageError, FileNotFoundError) as error:
        raise InputError(f"frame {path} can't be read: {error}") from error
