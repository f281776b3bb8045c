"""Data: the generated `shapes` set, on which every recipe runs without a download.

Importing this package does not import mmdet; the data set classes live in
``pe_dense.datasets.shapes_dataset``, which the registry imports on its first look-up.
"""

from pe_dense.datasets.shapes import write_shapes
from pe_dense.datasets.shapes_form import CLASSES
from pe_dense.datasets.shapes_scene import Scene, draw_scene

__all__ = ["CLASSES", "Scene", "draw_scene", "write_shapes"]
