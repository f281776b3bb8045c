"""Mask R-CNN with PE Spatial S on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_s16.py --launcher pytorch

Recipe: not published for this size: as `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import s16
    from .lvis_maskrcnn_pe_b16 import *

model.merge(s16)
