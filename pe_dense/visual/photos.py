"""Photos as a tower wants them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def crop_square(photo: Image.Image, size: int) -> Image.Image:
    """The middle of a photo, ``size`` px wide and high."""
    return ImageOps.fit(photo, (size, size), Image.Resampling.BICUBIC)


def to_input(photo: Image.Image) -> Tensor:
    """(1, 3, H, W) as towers take it: RGB, ``(x / 255 - 0.5) / 0.5``."""
    pixels = torch.from_numpy(np.array(photo, dtype=np.float32))
    return ((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
