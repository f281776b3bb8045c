"""DETA with PE Spatial B on COCO at 1024 px, 24 epochs, starting from the weights of the tower.

    tools/train.py configs/coco_deta_pe_b16.py --launcher pytorch

The recipe is not published for this size; it is that of `_l14` with ViTDet-B's stochastic depth and decay.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_deta import *
    from ._base_.detection_towers import b16, b_decay_rate, native_windows

model.merge(b16)
model.merge(native_windows)
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=b_decay_rate)))
