"""The `shapes` data as mmseg's data sets of classes and of depth, which make their files on first use."""

from __future__ import annotations

from mmseg.datasets import BaseSegDataset, NYUDataset

from pe_dense.datasets.shapes import write_shapes
from pe_dense.datasets.shapes_form import CLASSES
from pe_dense.registry import DATASETS

_PALETTE = [
    (40, 40, 40),
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
    """Mixin: writes the data before the folders are listed."""

    def __init__(self, *, data_root: str = "data/shapes", generator: dict | None = None, **options) -> None:
        self.generator = generator or {}
        super().__init__(data_root=data_root, img_suffix=".png", **options)

    def load_data_list(self) -> list[dict]:
        write_shapes(self.data_root, **self.generator)
        return super().load_data_list()


@DATASETS.register_module()
class ShapesSegmentationDataset(_Generated, BaseSegDataset):
    """Class maps of the `shapes` data: the background, then the eight forms.

    Args:
        data_root: folder of the data; made on first use, if missing.
        generator: arguments of :func:`pe_dense.datasets.write_shapes` other than the root; None for its defaults.
        options: of ``BaseSegDataset``, with ``data_prefix=dict(img_path='train', seg_map_path='semantic/train')``.

    Raises:
        FileExistsError: if ``data_root`` holds data from other arguments, or something else.
    """

    METAINFO = dict(classes=("background", *CLASSES), palette=_PALETTE)


@DATASETS.register_module()
class ShapesDepthDataset(_Generated, NYUDataset):
    """Depth maps of the `shapes` data, in millimetres: see :class:`ShapesSegmentationDataset`.

    Haze, occlusion and shadows tell the depth of a shape; the background is a slanted plane behind all of them.
    ``data_prefix=dict(img_path='train', depth_map_path='depth/train')``.
    """

    METAINFO = dict(classes=("depth",), palette=_PALETTE[:1])
