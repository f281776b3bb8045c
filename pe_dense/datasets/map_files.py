"""Data set of images and their label or depth maps, listed in a file."""

from __future__ import annotations

import os

from mmseg.datasets import BaseSegDataset

from pe_dense.datasets.annotations import AnnotationError, read_json
from pe_dense.registry import DATASETS


@DATASETS.register_module()
class MapFiles(BaseSegDataset):
    """Images and maps of a list.

    Args:
        ann_file: JSON file with a list of pairs of an image and its map; relative to ``data_root`` or absolute, as are
            the files that it names.
        map_key: key of the map's path in an entry: ``seg_map_path``, or ``depth_map_path`` for depth.
        options: arguments of mmseg's ``BaseSegDataset``.

    Raises:
        AnnotationError: if the file is not such a list.
    """

    def __init__(self, ann_file: str, map_key: str = "seg_map_path", **options):
        self.map_key = map_key
        super().__init__(ann_file=ann_file, **options)

    def load_data_list(self) -> list[dict]:
        """Return an entry for each image, in the order of the list."""
        pairs = read_json(self.ann_file)
        good = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        if not good or not all(isinstance(path, str) for pair in pairs for path in pair):
            raise AnnotationError(f"{self.ann_file} is not a list of pairs of an image and its map")
        root = self.data_root or ""
        return [
            {
                "img_path": os.path.join(root, image),
                self.map_key: os.path.join(root, path),
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, path in pairs
        ]
