"""DETA with PE Spatial G, stage 3 of 4: COCO at 1728 px, 12 epochs from stage 2's weights, with a new classifier.

    tools/train.py configs/coco_deta_pe_g14_1728.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (64 images a step in all, tower in bfloat16).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_deta import *
    from ._base_.deta import *
    from ._base_.runtime import *

image_size = 1728
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, drop_path_rate=0.4, init_cfg=None),
        tower_dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/objects365_deta_pe_g14_1536", keep_classifier=False),
    )
)
train_dataloader.dataset.pipeline[3].image_size = image_size
val_dataloader.dataset.pipeline[1].scale = (image_size, image_size)
test_dataloader = val_dataloader
tta_pipeline[1].transforms[0] = [dict(view, scale=(image_size, image_size)) for view in tta_pipeline[1].transforms[0]]

optim_wrapper.merge(dict(optimizer=dict(lr=5e-5)))
epoch = 118_287 // 64  # iterations
max_iters = 12 * epoch
# The script's drop; the paper's is after 8 epochs.
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[10 * epoch], gamma=0.1)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
auto_scale_lr = dict(enable=False, base_batch_size=64)
