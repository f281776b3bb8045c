"""LVIS-format data set of instances."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.datasets import LVISV1Dataset

from pe_dense.datasets.annotations import LVIS_NAMES
from pe_dense.datasets.coco import CocoDataset
from pe_dense.registry import DATASETS


@DATASETS.register_module()
class LVISDataset(CocoDataset):
    """Data set of instances in the format of LVIS v1 or v0.5.

    The file of an image is the path in its ``coco_url`` (``train2017/000000391895.jpg``: if the images of COCO 2017 are
    below ``data_root``, ``data_prefix`` is ``dict(img='')``), or its ``file_name`` if it has no URL.

    Args:
        ann_file: path of the annotation file.
        metainfo: as in mmdet's data sets; ``classes`` must be those of the file, or some of them, in the same order. By
            default they are those of the file, and those of LVIS v1 until it is read.
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
