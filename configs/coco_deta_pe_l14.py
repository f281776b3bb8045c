"""DETA with PE Spatial L on COCO at 1024 px, 24 epochs, straight from the tower's weights.

    tools/train.py configs/coco_deta_pe_l14.py --launcher pytorch

Recipe: not published for this size: the first stage of G's with the tower of the paper's L-size recipe (Tab. 24).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_deta import *
    from ._base_.deta import *
    from ._base_.detection_towers import l14
    from ._base_.runtime import *

model.merge(l14)
model.backbone.merge(dict(grid_size=None, window_size=32, rope_reference_grid=32))
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=0.8)))

epoch = -(-118_287 // 64)  # iterations of 64 images in all, rounded up
max_iters = 24 * epoch
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[20 * epoch], gamma=0.1)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
auto_scale_lr = dict(enable=False, base_batch_size=64)
