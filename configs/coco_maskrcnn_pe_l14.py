"""Mask R-CNN with PE Spatial L on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_l14.py --launcher pytorch

Recipe: the paper's L-size recipe (Tab. 24): 100 epochs, windows as wide as the learned grid.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import l14
    from .coco_maskrcnn_pe_g14 import *

model.merge(l14)
optim_wrapper.merge(dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(decay_rate=0.8)))

max_iters = 184_375  # 100 epochs
train_cfg.merge(dict(max_iters=max_iters))
param_scheduler[1].merge(dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27]))
