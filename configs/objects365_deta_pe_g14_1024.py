"""DETA with PE Spatial G, stage 1 of 4: Objects365 at 1024 px, 12 epochs.

    tools/train.py configs/objects365_deta_pe_g14_1024.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (256 images a step in all).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.deta import *
    from ._base_.objects365 import *
    from ._base_.runtime import *

model.merge(dict(bbox_head=dict(num_classes=365)))

epoch = -(-1_742_289 // 256)  # iterations of 256 images in all, rounded up
max_iters = 12 * epoch
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[10 * epoch], gamma=0.1)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
auto_scale_lr = dict(enable=False, base_batch_size=256)
