"""Data set of unlabeled images in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import as_rgb, decode, find_images


class UnusableImageError(InputError):
    """An image cannot be decoded or is too small."""


class ImageReader:
    """Decode and augment an image.

    Args:
        pipeline: transforms of a dict with ``image``, a Pillow image in RGB; the last one converts it to a tensor.
        min_side: lower limit of the shorter side in pixels.
    """

    def __init__(self, pipeline: Sequence[dict], min_side: int):
        self.pipeline = Compose(pipeline)
        self.min_side = min_side

    def __call__(self, file: str | Path | BinaryIO, name: str) -> dict:
        """Read a file.

        Args:
            file: path, or open file.
            name: name of the file in errors.

        Returns:
            the output of the pipeline.

        Raises:
            UnusableImageError: naming the file and the reason.
        """
        try:
            image = as_rgb(decode(file, name))
        except (FileNotFoundError, ValueError) as error:
            raise UnusableImageError(str(error)) from error
        if min(image.size) < self.min_side:
            raise UnusableImageError(f"{name} is {image.width} x {image.height} px, below {self.min_side}")
        return self.pipeline(dict(image=image))


@DATASETS.register_module()
class ImageFolder(Dataset):
    """Data set of all images in a folder and its subfolders.

    Checking all files before training would take hours for large folders, so unusable images are skipped while loading:
    the next usable image is returned instead, with a list of those skipped.

    Args:
        data_root: folder of the images.
        pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageReader`.

    Raises:
        FileNotFoundError: if the folder does not exist or contains no image.
    """

    metainfo: dict = {}

    def __init__(self, data_root: str | Path, pipeline: Sequence[dict], min_side: int = 32):
        root = Path(data_root)
        if not root.is_dir():
            raise FileNotFoundError(f"Folder of images {root} does not exist ({root.absolute()})")
        self.paths = find_images([root])
        self._read = ImageReader(pipeline, min_side)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        """Load an image.

        Returns:
            the output of the pipeline, with ``path`` and ``skipped``: one line with path and reason for each unusable
            image that was skipped.

        Raises:
            UnusableImageError: if no image of the folder can be used.
        """
        skipped: list[str] = []
        for step in range(len(self)):
            path = self.paths[(index + step) % len(self)]
            try:
                return dict(self._read(path, str(path)), path=str(path), skipped="\n".join(skipped))
            except UnusableImageError as error:
                skipped.append(str(error))
        raise UnusableImageError(f"None of {len(self)} images can be used: {skipped[0]}, ...")
