"""Data transforms for depth training."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError


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
        for key in ("img", *results.get("seg_fields", ())):
            results[key] = results[key][y1:y2, x1:x2]
        results["img_shape"] = (y2 - y1, x2 - x1)
        return results


@TRANSFORMS.register_module()
class GammaBrightnessColor(BaseTransform):
    """Randomly change gamma, brightness and color of an image.

    Source: BTS (arXiv 1907.10326), as in DINOv2's depth evaluation.

    Args:
        prob: probability that the image is changed.
        gamma: range of the exponent, on values in [0, 1].
        brightness: range of the factor of all channels.
        color: range of the factor of each channel.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma: tuple[float, float] = (0.9, 1.1),
        brightness: tuple[float, float] = (0.75, 1.25),
        color: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        self.prob, self.gamma, self.brightness, self.color = prob, gamma, brightness, color

    def transform(self, results: dict) -> dict:
        """Change ``img``, (H, W, 3) in 0..255; the result is float32."""
        image = results["img"].astype(np.float32)
        if np.random.uniform() < self.prob:
            factors = np.random.uniform(*self.brightness) * np.random.uniform(*self.color, size=3)
            image = 255 * (image / 255) ** np.random.uniform(*self.gamma) * factors
        results["img"] = image.clip(0, 255).astype(np.float32)
        return results
