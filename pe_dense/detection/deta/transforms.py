"""Image transforms of DETA: random sizes for training, one size for testing, smaller views for augmented testing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import RandomCrop, Resize

from pe_dense.registry import TRANSFORMS
from pe_dense.utils.errors import InputError

MARGIN = 32  # px between the longest side of a resized image and the padded square; also the step of training sizes
SHORTEST = 480  # px, smallest shorter side in training
CROPS = (384, 600)  # px, shortest and longest side of a crop
SIDES_BEFORE_CROP = (400, 500, 600)  # px


@TRANSFORMS.register_module()
class DETAJitter(BaseTransform):
    """Randomly resize an image and its boxes for training, with a random crop half of the time.

    Without the crop, the shorter side becomes one of 480, 512, ... px, and the longer side is limited to
    ``image_size - 32`` px. With it, the shorter side is first resized to 400, 500 or 600 px, a part with sides of 384
    to 600 px is cut out, and that part is always enlarged until its longer side is ``image_size - 32`` px.

    Source: DETR's augmentation (arXiv 2005.12872, section 4) in the sizes of the Perception Encoder's detection code.

    Args:
        image_size: side in px of the square that images are padded to.

    Raises:
        InputError: if ``image_size`` is too small for the sizes above.
    """

    def __init__(self, image_size: int):
        if image_size < SHORTEST + MARGIN:
            raise InputError(
                f"image_size {image_size} is too small for DETAJitter: it must be at least {SHORTEST + MARGIN}"
            )
        self.longest = image_size - MARGIN
        self.sides = range(SHORTEST, self.longest + 1, MARGIN)
        self.crop = RandomCrop(crop_size=CROPS, crop_type="absolute_range", allow_negative_crop=True)

    def transform(self, results: dict) -> dict:
        """Resize ``img`` and ``gt_bboxes``, and what else mmdet's transforms update."""
        if np.random.rand() < 0.5:
            return _resize(results, int(np.random.choice(self.sides)), self.longest)
        results = self.crop(_resize(results, int(np.random.choice(SIDES_BEFORE_CROP))))
        return _resize(results, self.longest, self.longest)


@TRANSFORMS.register_module()
class DETAResize(BaseTransform):
    """Resize an image and its boxes for testing: the longer side becomes ``image_size - 32`` px.

    The published rounding makes it one or two pixels less for some aspect ratios, see :func:`detr_size`.

    Source: the Perception Encoder's detection code (arXiv 2504.13181, section 5.3).

    Args:
        image_size: side in px of the square that images are padded to.

    Raises:
        InputError: if ``image_size`` is not more than 32.
    """

    def __init__(self, image_size: int):
        if image_size <= MARGIN:
            raise InputError(f"image_size {image_size} is too small for DETAResize: it must be more than {MARGIN}")
        self.longest = image_size - MARGIN

    def transform(self, results: dict) -> dict:
        """Resize ``img``, ``gt_bboxes`` where present, and set ``scale`` to the nominal size."""
        results = _resize(results, self.longest, self.longest)
        results["scale"] = (self.longest, self.longest)
        return results


@TRANSFORMS.register_module()
class DETAView(BaseTransform):
    """Make a smaller view for augmented testing out of an image that :class:`DETAResize` has resized.

    The published code resizes its normalized tensor, by bilinear interpolation with antialiasing. Resizing the pixels
    as float32 before they are normalized gives the same, since both steps are linear.

    Source: the Perception Encoder's detection code (arXiv 2504.13181, section 5.3).

    Args:
        image_size: side in px of the square that images are padded to.
        ratio: longer side of the view, as a part of ``image_size``; 1 leaves the resized image unchanged.

    Raises:
        InputError: if ``ratio`` is not in (0, 1].
    """

    def __init__(self, image_size: int, ratio: float):
        if not 0 < ratio <= 1:
            raise InputError(f"ratio {ratio} of a DETAView must be more than 0 and at most 1")
        self.longest = None if ratio == 1 else round(image_size * ratio)

    def transform(self, results: dict) -> dict:
        """Replace ``img`` (H, W, 3) by float32 pixels of the view's size; ``scale`` becomes the nominal size."""
        if self.longest is None:
            return results
        size = self.size(*results["img"].shape[:2])
        pixels = torch.from_numpy(np.ascontiguousarray(results["img"], dtype=np.float32)).permute(2, 0, 1)
        resized = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        results["img"] = resized.permute(1, 2, 0).contiguous().numpy()
        results["img_shape"] = size
        results["scale"] = (self.longest, self.longest)
        return results

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in px of the view of an image that was resized to ``height`` and ``width``."""
        if self.longest is None:
            return height, width
        scale = self.longest / max(height, width)
        return max(1, int(scale * height)), max(1, int(scale * width))


def detr_size(width: int, height: int, shorter: int, longest: int | None = None) -> tuple[int, int]:
    """Size of a resized image by DETR's rule, which the published DETA uses.

    The shorter side is rounded where the limit applies, and the longer side is computed from it and truncated. Limits
    are therefore met up to two pixels: a longer side of 992 px may become 991 or 990 px, rarely 993 px.

    Args:
        width, height: size of the image in px.
        shorter: length that the shorter side is given, in px.
        longest: limit of the longer side in px; None for no limit.

    Returns:
        width and height in px.
    """
    low, high = min(width, height), max(width, height)
    if longest is not None and high / low * shorter > longest:
        shorter = max(1, round(longest * low / high))
    if low == shorter:
        return width, height
    if width < height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _resize(results: dict, shorter: int, longest: int | None = None) -> dict:
    height, width = results["img"].shape[:2]
    size = detr_size(width, height, shorter, longest)
    # Pillow, as in the published code: it averages over pixels where an image shrinks, OpenCV does not.
    return Resize(scale=size, keep_ratio=False, backend="pillow")(results)
