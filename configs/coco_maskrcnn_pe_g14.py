"""Mask R-CNN with PE Spatial G on COCO, 36 epochs: published box/mask AP 57.8/50.3.

    tools/train.py configs/coco_maskrcnn_pe_g14.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (1024 px, windows of 32, 64 images per step).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *
    from ._base_.detection_schedule_36ep import *
