"""Mask R-CNN with PE Core S on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_core_s16.py --launcher pytorch

Recipe: not published for this tower: that of the Spatial tower of its size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import core_s16
    from .coco_maskrcnn_pe_s16 import *

model.merge(core_s16)
