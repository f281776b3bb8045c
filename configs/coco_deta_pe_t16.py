"""DETA with PE Spatial T on COCO at 1024 px, 24 epochs, starting from the weights of the tower.

    tools/train.py configs/coco_deta_pe_t16.py --launcher pytorch

The recipe is not published for this size; it is that of `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_deta import *
    from ._base_.detection_towers import b_decay_rate, native_windows, t16

model.merge(t16)
model.merge(native_windows)
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=b_decay_rate)))
