"""Mask R-CNN with PE Core G on COCO, 75 epochs: published box/mask AP 57.0/49.8.

tools/train.py configs/coco_maskrcnn_pe_core_g14.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *
    from ._base_.detection_schedule_75ep import *
    from ._base_.detection_towers import core_g14

model.merge(core_g14)
