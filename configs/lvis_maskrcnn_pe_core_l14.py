"""Mask R-CNN with PE Core L on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_core_l14.py --launcher pytorch

The recipe is not published for this tower; it is that of the Spatial tower of this size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule_100ep import *
    from ._base_.detection_towers import core_l14, l_decay_rate
    from ._base_.lvis_maskrcnn import *

model.merge(core_l14)
optim_wrapper.merge(dict(optimizer=dict(lr=smaller_towers_lr), paramwise_cfg=dict(decay_rate=l_decay_rate)))
