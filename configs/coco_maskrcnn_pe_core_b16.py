"""Mask R-CNN with PE Core B on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_core_b16.py --launcher pytorch

The recipe is not published for this tower; it is that of the Spatial tower of this size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *
    from ._base_.detection_schedule_100ep import *
    from ._base_.detection_towers import b_decay_rate, core_b16

model.merge(core_b16)
optim_wrapper.merge(dict(optimizer=dict(lr=smaller_towers_lr), paramwise_cfg=dict(decay_rate=b_decay_rate)))
