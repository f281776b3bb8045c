"""DETA with PE Spatial B on COCO at 1024 px, 24 epochs, straight from the tower's weights.

    tools/train.py configs/coco_deta_pe_b16.py --launcher pytorch

Recipe: not published for this size: as `_l14`, with ViTDet-B's stochastic depth and decay.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import b16
    from .coco_deta_pe_l14 import *

model.merge(b16)
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=0.7)))
