"""Transforms of the detectors' training images."""

from __future__ import annotations

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop

from pe_dense.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FixedSizeCrop(RandomCrop):
    """Crop to a fixed size, with one random number for both offsets.

    As Detectron2's ``FixedSizeCrop``, the crop of the published detectors' large-scale jitter: the window moves along
    the diagonal from the top left to the bottom right corner of the image. mmdet's ``RandomCrop`` draws each offset
    separately. An image that is smaller than the crop stays as it is.

    Args:
        crop_size: (width, height) of the crop in pixels, in mmdet's order.
        **kwargs: ``allow_negative_crop``, ``recompute_bbox`` and ``bbox_clip_border`` of mmdet's ``RandomCrop``.
    """

    def __init__(self, crop_size: tuple[int, int], **kwargs) -> None:
        super().__init__(crop_size=crop_size, crop_type="absolute", **kwargs)

    @cache_randomness
    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        vertical, horizontal = np.round(np.multiply(margin, np.random.uniform())).astype(int).tolist()
        return vertical, horizontal
