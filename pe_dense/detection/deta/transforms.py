"""DETA's augmentation of sizes."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomCrop, Resize

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError

MARGIN = 32  # px that the longer side stays below the image size; also the step of the shorter one
SHORTEST = 480  # px
CROPS = (384, 600)  # px, shortest and longest side of a crop
SIDES_BEFORE_CROP = (400, 500, 600)  # px
UNLIMITED = 100_000  # px


@TRANSFORMS.register_module()
class DETAJitter(BaseTransform):
    """Resize an image and its boxes at random, half of the time after cutting out a part.

    The shorter side becomes one of 480, 512, ... px, the longer one at most the image size less 32 px. A part is cut
    out of an image whose shorter side is 400, 500 or 600 px, with sides of 384 to 600 px.

    Source: DETR's augmentation (arXiv 2005.12872, section 4) in the sizes of the Perception Encoder's DETA.

    Args:
        image_size: side in px of the square that images are padded to.

    Raises:
        ValueError: for a size that leaves no choice.
    """

    def __init__(self, image_size: int):
        if image_size < SHORTEST + MARGIN:
            raise InputError(f"image_size {image_size} is less than {SHORTEST + MARGIN}, the smallest that can be made")
        self.longest = image_size - MARGIN
        self.sides = range(SHORTEST, self.longest + 1, MARGIN)
        self.crop = RandomCrop(crop_size=CROPS, crop_type="absolute_range", allow_negative_crop=True)

    def transform(self, results: dict) -> dict:
        """Change ``img``, ``gt_bboxes`` and what else mmdet's transforms keep."""
        if np.random.rand() < 0.5:
            results = self.crop(_resize(results, np.random.choice(SIDES_BEFORE_CROP), UNLIMITED))
        return _resize(results, np.random.choice(self.sides), self.longest)


def _resize(results: dict, shorter: int, longest: int) -> dict:
    # Pillow, as in the published code: where an image shrinks it averages over pixels, OpenCV leaves them out.
    return Resize(scale=(longest, int(shorter)), keep_ratio=True, backend="pillow")(results)
