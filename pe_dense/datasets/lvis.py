"""Instances in LVIS's format."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.datasets import LVISV1Dataset

from pe_dense.datasets.annotations import LVIS_NAMES
from pe_dense.datasets.coco import CocoDataset
from pe_dense.registry import DATASETS


@DATASETS.register_module()
class LVISDataset(CocoDataset):
    """Instances of LVIS v1, v0.5, or a file in their format.

    An image's file is the path in its ``coco_url`` (``train2017/000000391895.jpg``: with the images of COCO 2017 below
    the data's root, ``data_prefix`` is ``dict(img='')``), or its ``file_name`` where it has no address.

    Args:
        ann_file: the annotation file.
        metainfo: as mmdet's data sets have it; its ``classes`` must be the file's, or some of them, in its order.
            Without them they are the file's, and LVIS v1's until it is read.
        **kwargs: arguments of mmdet's ``CocoDataset``.

    Raises:
        ValueError: see :class:`pe_dense.datasets.coco.CocoDataset`.
    """

    METAINFO = LVISV1Dataset.METAINFO
    name_fields = LVIS_NAMES

    def __init__(self, ann_file: str = "", *, metainfo: dict | None = None, **kwargs) -> None:
        self._names_own_classes = "classes" in (metainfo or {})
        super().__init__(ann_file, metainfo=metainfo, **kwargs)

    def _match_classes(self, names: Sequence[str]) -> None:
        if self._names_own_classes:
            super()._match_classes(names)
        else:
            self._metainfo["classes"] = tuple(names)
