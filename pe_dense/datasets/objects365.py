"""Objects365 with either name of its training annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmdet.datasets import Objects365V2Dataset

from pe_dense.registry import DATASETS


@DATASETS.register_module()
class Objects365Dataset(Objects365V2Dataset):
    """mmdet's ``Objects365V2Dataset``, which accepts several names of the annotation file.

    Args:
        ann_file: path of the annotation file, relative to ``data_root``.
        data_root: folder of the data.
        ann_file_alternatives: other names of the file; the first that exists is read where ``ann_file`` does not exist.
        kwargs: those of mmdet's class.
    """

    def __init__(self, ann_file: str = "", *, data_root: str = "", ann_file_alternatives: Sequence[str] = (), **kwargs):
        names = [ann_file, *ann_file_alternatives]
        existing = (name for name in names if os.path.exists(os.path.join(data_root or "", name)))
        super().__init__(ann_file=next(existing, ann_file), data_root=data_root, **kwargs)
