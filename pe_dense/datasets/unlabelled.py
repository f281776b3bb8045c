"""Images without labels: what a folder and shards have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mmengine.dataset import Compose
from PIL import Image, ImageOps, UnidentifiedImageError


class UnusableImageError(ValueError):
    """A file that can't be decoded, or is too small."""


class ImageReader:
    """Decode and augment an image.

    Args:
        pipeline: transforms of a dict with ``image``, a Pillow image in RGB; the last makes a tensor of it.
        min_side: images with a shorter side below this many pixels are refused.
    """

    def __init__(self, pipeline: Sequence[dict], min_side: int):
        self.pipeline = Compose(pipeline)
        self.min_side = min_side

    def __call__(self, file: str | Path | BinaryIO) -> dict:
        """Read a file.

        Returns:
            what the pipeline makes.

        Raises:
            UnusableImageError: telling why.
        """
        return self.pipeline(dict(image=self._decode(file)))

    def _decode(self, file: str | Path | BinaryIO) -> Image.Image:
        try:
            with Image.open(file) as image:
                if min(image.size) < self.min_side:
                    raise UnusableImageError(f"{image.width} x {image.height} px, below {self.min_side}")
                return ImageOps.exif_transpose(image).convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnusableImageError(f"unreadable ({type(error).__name__})") from error
