"""KITTI's images with depth maps, in the split of Eigen et al."""

from __future__ import annotations

import os.path as osp
from pathlib import Path

from mmseg.datasets import BaseSegDataset

from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError


@DATASETS.register_module()
class KITTIDepthDataset(BaseSegDataset):
    """KITTI's raw images with the depth maps of its depth benchmark, in the split of Eigen et al. (arXiv 1406.2283).

    A line of the list is ``<image> <depth map> <focal length>``, as in BTS (arXiv 1907.10326) and its successors::

        2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png
        2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377

    An image without a depth map (``None``) is left out: 652 of 697 test images remain. Depth maps are PNG of 16 bits,
    meters times 256, with 0 where nothing was measured. They are searched in ``data_depth_annotated`` and in its
    folders ``train`` and ``val``, as the archive has them, which is another split than Eigen's.

    Args:
        ann_file: the list.
        data_prefix: folders ``img_path`` and ``depth_map_path``.
        options: further arguments of mmseg's ``BaseSegDataset``.

    Raises:
        InputError: for a line of another form, with its number.
    """

    METAINFO = dict(classes=(), palette=())

    def __init__(
        self,
        ann_file: str,
        data_prefix: dict | None = None,
        **options,
    ) -> None:
        prefix = data_prefix or dict(img_path="input", depth_map_path="data_depth_annotated")
        super().__init__(ann_file=ann_file, data_prefix=prefix, **options)

    def load_data_list(self) -> list[dict]:
        """Read the list; items are sorted by the path of the image and have ``img_path`` and ``depth_map_path``."""
        found, folders = [], {}
        for number, line in enumerate(self._lines(), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) not in (2, 3):
                raise InputError(
                    f"{self.ann_file}, line {number}: expected `<image> <depth map> <focal length>`, or None as the "
                    f"depth map, got {line.strip()[:100]!r}"
                )
            image, depth = (name.lstrip("/") for name in fields[:2])
            if depth == "None":
                continue
            drive = depth.partition("/")[0]
            if drive not in folders:
                folders[drive] = self._folder_of(drive)
            found.append(
                dict(
                    img_path=osp.join(self.data_prefix["img_path"], image),
                    depth_map_path=osp.join(folders[drive], depth),
                    seg_fields=[],
                )
            )
        return sorted(found, key=lambda item: item["img_path"])

    def _lines(self) -> list[str]:
        try:
            return Path(self.ann_file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"list {self.ann_file} cannot be read: {error}") from error

    def _folder_of(self, drive: str) -> str:
        """Return the folder that contains a drive; the first one if none does, so that errors name it."""
        root = self.data_prefix["depth_map_path"]
        folders = [root, osp.join(root, "train"), osp.join(root, "val")]
        return next((folder for folder in folders if osp.isdir(osp.join(folder, drive))), root)
