"""DETA with PE Spatial T on COCO at 1024 px, 24 epochs, straight from the tower's weights.

    tools/train.py configs/coco_deta_pe_t16.py --launcher pytorch

Recipe: not published for this size: as `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import t16
    from .coco_deta_pe_b16 import *

model.merge(t16)
