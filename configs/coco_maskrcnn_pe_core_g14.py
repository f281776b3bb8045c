"""Mask R-CNN with PE Core G on COCO, 75 epochs: published box/mask AP 57.0/49.8.

tools/train.py configs/coco_maskrcnn_pe_core_g14.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_towers import core_g14
    from .coco_maskrcnn_pe_g14 import *

model.merge(core_g14)

max_iters = 184_375 * 3 // 4  # 75 epochs
train_cfg.merge(dict(max_iters=max_iters))
param_scheduler[1].merge(dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27]))
