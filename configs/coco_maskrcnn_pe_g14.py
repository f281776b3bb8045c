"""Mask R-CNN with PE Spatial G on COCO, 36 epochs: published box/mask AP 57.8/50.3.

    tools/train.py configs/coco_maskrcnn_pe_g14.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (1024 px, windows of 32, 64 images a step).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *

max_iters = 184_375 * 36 // 100  # 36 epochs
train_cfg.merge(dict(max_iters=max_iters))
param_scheduler[1].merge(dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27]))
