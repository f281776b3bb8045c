"""A folder of images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from pe_dense.datasets.unlabelled import ImageReader, UnusableImageError
from pe_dense.io.images import find_images
from pe_dense.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(Dataset):
    """All images in a folder and below.

    Looking at all files before training would take hours for some folders, so what can't be used is met on the way: the
    next good image takes its place and says so.

    Args:
        data_root: the folder.
        pipeline, min_side: as of :class:`~pe_dense.datasets.unlabelled.ImageReader`.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no image.
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
        """An image.

        Returns:
            what the pipeline makes of ``image``, with ``path`` and ``skipped``: a line with path and fault of each
            unusable image that was met first.

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
