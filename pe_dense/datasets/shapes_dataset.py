"""The `shapes` data as mmdet data sets, which make their files on first use."""

from pe_dense.datasets.coco_dataset import CocoDataset
from pe_dense.datasets.lvis_dataset import LVISDataset
from pe_dense.datasets.shapes import write_shapes
from pe_dense.datasets.shapes_form import CLASSES
from pe_dense.registry import DATASETS

_PALETTE = [
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (188, 189, 34),
]


class _Generated:
    """Mixin: writes the data before the annotation file is read."""

    METAINFO = dict(classes=CLASSES, palette=_PALETTE)

    def __init__(self, *, data_root: str = "data/shapes", generator: dict | None = None, **kwargs) -> None:
        self.generator = generator or {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        # Here, not at construction: mmdet's inferencers construct data sets lazily to see the class names.
        write_shapes(self.data_root, **self.generator)
        return super().load_data_list()


@DATASETS.register_module()
class ShapesDataset(_Generated, CocoDataset):
    """Instances of the `shapes` data, in COCO format.

    Use it like mmdet's ``CocoDataset``, with ``ann_file='annotations/instances_train.json'`` and
    ``data_prefix=dict(img='train/')``; add ``seg='semantic/train/'`` for the class maps.

    Args:
        data_root: folder of the data; made when the annotations are first read, if missing.
        generator: arguments of :func:`pe_dense.datasets.write_shapes` other than the root; None for its
            defaults.
        **kwargs: arguments of ``CocoDataset``.

    Raises:
        FileExistsError: if ``data_root`` holds data from other arguments, or something else.
    """


@DATASETS.register_module()
class ShapesLVISDataset(_Generated, LVISDataset):
    """Instances of the `shapes` data, in LVIS v1 format with its federated gaps.

    Use it like :class:`pe_dense.datasets.lvis_dataset.LVISDataset`, with ``ann_file='annotations/lvis_train.json'`` and
    ``data_prefix=dict(img='')``: image names carry the split. Arguments and errors are those of
    :class:`ShapesDataset`.
    """
