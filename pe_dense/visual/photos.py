"""Photos as pixels, and as a tower wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def read_photo(path: str | Path) -> Image.Image:
    """Read an image file as RGB, the way a viewer shows it.

    A photo's EXIF orientation is applied, transparency lies on white, grey of 16 bits is scaled to 8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it can't be decoded.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with Image.open(path) as image:
            return as_rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image ({str(error).splitlines()[0]})") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        scale = 65535 if grey.max(initial=0) > 255 else 255
        image = Image.fromarray(np.rint(grey.clip(0, scale) / scale * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def crop_square(photo: Image.Image, size: int) -> Image.Image:
    """The middle of a photo, ``size`` px wide and high."""
    return ImageOps.fit(photo, (size, size), Image.Resampling.BICUBIC)


def to_input(photo: Image.Image) -> Tensor:
    """(1, 3, H, W) as towers take it: RGB, ``(x / 255 - 0.5) / 0.5``."""
    pixels = torch.from_numpy(np.array(photo, dtype=np.float32))
    return ((pixels / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
