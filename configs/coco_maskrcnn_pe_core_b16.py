"""Mask R-CNN with PE Core B on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_core_b16.py --launcher pytorch

Recipe: not published for this tower: that of the Spatial tower of its size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import core_b16
    from .coco_maskrcnn_pe_b16 import *

model.merge(core_b16)
