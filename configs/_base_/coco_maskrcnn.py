"""Mask R-CNN on COCO by the published recipe."""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .maskrcnn import *
    from .runtime import *
