"""Generated data sets (`shapes`), on which every recipe runs without a download."""

from pe_dense.datasets.synthetic.build import write_forms, write_panoptic, write_shapes
from pe_dense.datasets.synthetic.datasets import (
    ShapesCaptionDataset,
    ShapesDataset,
    ShapesDepthDataset,
    ShapesFormDataset,
    ShapesLVISDataset,
    ShapesPanopticDataset,
    ShapesSegmentationDataset,
    ShapesVideoDataset,
    write_shapes_video,
)
from pe_dense.datasets.synthetic.scene import Scene, draw_scene
from pe_dense.datasets.synthetic.shapes import CLASSES

__all__ = [
    "CLASSES",
    "Scene",
    "ShapesCaptionDataset",
    "ShapesDataset",
    "ShapesDepthDataset",
    "ShapesFormDataset",
    "ShapesLVISDataset",
    "ShapesPanopticDataset",
    "ShapesSegmentationDataset",
    "ShapesVideoDataset",
    "draw_scene",
    "write_forms",
    "write_panoptic",
    "write_shapes",
    "write_shapes_video",
]
