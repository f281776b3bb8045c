"""Mask R-CNN with PE Core G on LVIS v1, 75 epochs: published box/mask AP 51.9/47.9.

tools/train.py configs/lvis_maskrcnn_pe_core_g14.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule_75ep import *
    from ._base_.detection_towers import core_g14
    from ._base_.lvis_maskrcnn import *

model.merge(core_g14)
