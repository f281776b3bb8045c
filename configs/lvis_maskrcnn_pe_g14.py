"""Mask R-CNN with PE Spatial G on LVIS v1, 75 epochs: published box/mask AP 54.2/49.3.

    tools/train.py configs/lvis_maskrcnn_pe_g14.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (1024 px, windows of 32, 64 images per step).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule_75ep import *
    from ._base_.lvis_maskrcnn import *
