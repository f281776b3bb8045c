"""Images without labels: what a folder and shards have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mmengine.dataset import Compose

from pe_dense.io.photos import as_rgb, decode


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

    def __call__(self, file: str | Path | BinaryIO, name: str) -> dict:
        """Read a file.

        Args:
            file: its path, or its open content.
            name: how errors name it.

        Returns:
            what the pipeline makes.

        Raises:
            UnusableImageError: telling which and why.
        """
        try:
            image = as_rgb(decode(file, name))
        except (FileNotFoundError, ValueError) as error:
            raise UnusableImageError(str(error)) from error
        if min(image.size) < self.min_side:
            raise UnusableImageError(f"{name} is {image.width} x {image.height} px, below {self.min_side}")
        return self.pipeline(dict(image=image))
