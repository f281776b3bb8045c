"""DETA with PE Spatial G, stage 2 of 4: Objects365 at 1536 px, 6 epochs from stage 1's weights, new classifiers.

    tools/train.py configs/objects365_deta_pe_g14_1536.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (128 images a step in all).
"""

from mmengine.config import read_base

with read_base():
    from .objects365_deta_pe_g14_1024 import *

image_size = 1536
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, init_cfg=None),
        # The published script starts with new classifiers although the classes are those of stage 1; True keeps them.
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/objects365_deta_pe_g14_1024", keep_classifier=False),
    )
)
train_dataloader.dataset.pipeline[3].image_size = image_size
val_dataloader.dataset.pipeline[1].image_size = image_size
test_dataloader = val_dataloader
tta_pipeline[1].image_size = image_size
tta_pipeline[2].transforms[0] = [dict(view, image_size=image_size) for view in tta_pipeline[2].transforms[0]]

optim_wrapper.merge(dict(optimizer=dict(lr=5e-5)))
epoch = -(-1_742_289 // 128)  # iterations of 128 images in all, rounded up
max_iters = 6 * epoch
train_cfg.merge(dict(max_iters=max_iters, val_interval=epoch))
param_scheduler[0].merge(dict(end=max_iters, milestones=[4 * epoch]))  # the script's drop; the paper's is after 5
auto_scale_lr.merge(dict(base_batch_size=128))
