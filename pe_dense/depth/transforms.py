"""Transforms of images and depth maps in training and evaluation."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError


def _crop(results: dict, x1: int, y1: int, x2: int, y2: int) -> dict:
    for key in ("img", *results.get("seg_fields", ())):
        results[key] = results[key][y1:y2, x1:x2]
    results["img_shape"] = (y2 - y1, x2 - x1)
    return results


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Crop image and maps to a fixed box, for example to remove the white border of NYU Depth v2 images.

    Args:
        box: (x1, y1, x2, y2) in pixels, the right and the bottom edge excluded.
    """

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        self.box = tuple(box)

    def transform(self, results: dict) -> dict:
        """Crop ``img`` (H, W, 3) and the maps named in ``seg_fields`` (H, W).

        Raises:
            ValueError: if the box is not inside the image.
        """
        x1, y1, x2, y2 = self.box
        height, width = results["img"].shape[:2]
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise InputError(
                f"{results.get('img_path', 'an image')} has {width} x {height} px, which does not contain the crop box "
                f"{self.box}: set another box, or remove CropBox from the training pipeline"
            )
        return _crop(results, x1, y1, x2, y2)


@TRANSFORMS.register_module()
class CropBottomCenter(BaseTransform):
    """Crop image and maps to a size at the bottom and in the middle, as KITTI's depth benchmark does.

    Source: the "KB crop" of BTS (arXiv 1907.10326), with the original size of the sample set to the crop's, so that
    predictions are compared within it. Images without maps, to predict on, are not cropped.

    Args:
        size: (height, width) in pixels.
    """

    def __init__(self, size: tuple[int, int] = (352, 1216)) -> None:
        self.size = tuple(size)

    def transform(self, results: dict) -> dict:
        """Crop ``img`` (H, W, 3) and the maps named in ``seg_fields`` (H, W).

        Raises:
            ValueError: if the image is smaller than the crop.
        """
        if not results.get("seg_fields"):
            return results
        (height, width), (rows, columns) = results["img"].shape[:2], self.size
        if height < rows or width < columns:
            raise InputError(
                f"{results.get('img_path', 'an image')} has {width} x {height} px, less than the crop of {columns} x "
                f"{rows} px: set a smaller size of CropBottomCenter, or remove it from the pipeline"
            )
        left = (width - columns) // 2
        results["ori_shape"] = self.size
        return _crop(results, left, height - rows, left + columns, height)


@TRANSFORMS.register_module()
class GammaBrightnessColor(BaseTransform):
    """Randomly change gamma, brightness and color of an image.

    Source: BTS (arXiv 1907.10326), as in DINOv2's depth evaluation.

    Args:
        prob: probability that the image is changed.
        gamma: range of the exponent.
        unit: value in 0..255 that gamma does not change: 255 for gamma on values in [0, 1], as in BTS, or 1 for gamma
            on values in [0, 255], a much stronger change, as in DINOv3's depth evaluation.
        brightness: range of the factor of all channels.
        color: range of the factor of each channel.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma: tuple[float, float] = (0.9, 1.1),
        brightness: tuple[float, float] = (0.75, 1.25),
        color: tuple[float, float] = (0.9, 1.1),
        unit: float = 255.0,
    ) -> None:
        self.prob, self.gamma, self.brightness, self.color, self.unit = prob, gamma, brightness, color, unit

    def transform(self, results: dict) -> dict:
        """Change ``img``, (H, W, 3) in 0..255; the result is float32."""
        image = results["img"].astype(np.float32)
        if np.random.uniform() < self.prob:
            factors = np.random.uniform(*self.brightness) * np.random.uniform(*self.color, size=3)
            image = self.unit * (image / self.unit) ** np.random.uniform(*self.gamma) * factors
        results["img"] = image.clip(0, 255).astype(np.float32)
        return results
