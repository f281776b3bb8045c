"""Mask R-CNN with PE Spatial T on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_t16.py --launcher pytorch

The recipe is not published for this size; it is that of `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule_100ep import *
    from ._base_.detection_towers import b_decay_rate, t16
    from ._base_.lvis_maskrcnn import *

model.merge(t16)
optim_wrapper.merge(dict(optimizer=dict(lr=smaller_towers_lr), paramwise_cfg=dict(decay_rate=b_decay_rate)))
