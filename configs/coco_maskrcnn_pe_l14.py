"""Mask R-CNN with PE Spatial L on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_l14.py --launcher pytorch

Source: the paper's recipe for size L (Tab. 24): 100 epochs, windows of the size of the learned grid.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *
    from ._base_.detection_schedule_100ep import *
    from ._base_.detection_towers import l14, l_decay_rate

model.merge(l14)
optim_wrapper.merge(dict(optimizer=dict(lr=smaller_towers_lr), paramwise_cfg=dict(decay_rate=l_decay_rate)))
