"""DETA with PE Spatial G, stage 3 of 4: COCO at 1728 px, 12 epochs from stage 2's weights, with a new classifier.

    tools/train.py configs/coco_deta_pe_g14_1728.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (64 images a step in all; the tower trains in
bfloat16 and is tested in float32: `model.test_tower_dtype=bfloat16` is faster and less exact, see docs/deta.md).
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
val_dataloader.dataset.pipeline[1].image_size = image_size
test_dataloader = val_dataloader
tta_pipeline[1].image_size = image_size
tta_pipeline[2].transforms[0] = [
    # Longer sides of 1696 (that of the test), 1536 and 1152 px; boxes of the smaller two must exceed 32 x 32 px.
    dict(type="pe_dense.DETAView", image_size=image_size, ratio=ratio)
    for ratio in (1.0, 8 / 9, 2 / 3)
]
tta_model.merge(dict(min_sides=(0, 32, 32)))

optim_wrapper.merge(dict(optimizer=dict(lr=5e-5)))
epoch = -(-118_287 // 64)  # iterations of 64 images in all, rounded up
max_iters = 12 * epoch
# The script's drop; the paper's is after 8 epochs.
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[10 * epoch], gamma=0.1)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
auto_scale_lr = dict(enable=False, base_batch_size=64)
