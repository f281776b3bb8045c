"""Mask R-CNN with PE Core T on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_core_t16.py --launcher pytorch

Recipe: not published for this tower: that of the Spatial tower of its size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import core_t16
    from .lvis_maskrcnn_pe_t16 import *

model.merge(core_t16)
