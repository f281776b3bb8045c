"""Mask R-CNN on COCO by the published recipe, for 100 epochs."""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .detection_schedule import *
    from .maskrcnn import *
    from .runtime import *
