"""Image files as pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def read_photo(path: str | Path) -> Image.Image:
    """Read an image file as RGB, the way a viewer shows it.

    A photo's EXIF orientation is applied, transparency lies on white, grey of 16 bits is scaled to 8.

    Raises:
        FileNotFoundError, ValueError: as :func:`decode`.
    """
    return as_rgb(decode(path))


def decode(path: str | Path | BinaryIO, name: str | None = None, formats: Sequence[str] | None = None) -> Image.Image:
    """Decode an image file in its own mode, EXIF orientation applied.

    Args:
        path: a file, or its open content.
        name: how errors name it; the path by default.
        formats: of Pillow's that are allowed; all by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it can't be decoded, or says that it has more than 89 million pixels.
    """
    name = name or str(path)
    if isinstance(path, str | Path) and not Path(path).is_file():
        raise FileNotFoundError(f"image {name} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is told by one error, or does not matter
            with Image.open(path, formats=formats) as image:
                if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                    raise ValueError(
                        f"{image.width} x {image.height} px, more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million"
                    )
                image.load()
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a readable image (no format that is known)") from error
    except Exception as error:  # damaged files break decoders in ways of their own: struct.error, SyntaxError, ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{name} is not a readable image ({reason})") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        white = (1, 255, 65535) if image.mode == "F" else (255, 65535)  # floats may run to 1
        scale = next((level for level in white if grey.max(initial=0) <= level), white[-1])
        image = Image.fromarray(np.rint(grey.clip(0, scale) / scale * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
