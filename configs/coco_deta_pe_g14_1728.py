"""DETA with PE Spatial G, stage 3 of 4: COCO at 1728 px, 12 epochs from stage 2's weights, with a new classifier.

    tools/train.py configs/coco_deta_pe_g14_1728.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (64 images per step in total; the tower trains
in bfloat16 and is tested in float32: `model.test_tower_dtype=bfloat16` is faster and less exact, see docs/deta.md).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco import *
    from ._base_.deta import *
    from ._base_.deta_schedule import epoch_schedule
    from ._base_.detection_data import deta_pipelines, loaders
    from ._base_.runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
train_dataset.filter_cfg.filter_empty_gt = False
val_evaluator.metric = test_evaluator.metric = "bbox"

image_size = 1728
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, drop_path_rate=0.4, init_cfg=None),
        tower_dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/objects365_deta_pe_g14_1536", keep_classifier=False),
    )
)
optim_wrapper.merge(dict(optimizer=dict(lr=5e-5)))
# The script's drop; the paper's is after 8 epochs.
max_iters, param_scheduler, train_cfg, auto_scale_lr = epoch_schedule(
    num_train_images, batch_size=64, epochs=12, drop_after=10
)

# Longer sides of 1696 (that of the test), 1536 and 1152 px; boxes of the smaller two must exceed 32 x 32 px.
train_pipeline, test_pipeline, tta_pipeline = deta_pipelines(image_size, ratios=(1.0, 8 / 9, 2 / 3))
tta_model.merge(dict(min_sides=(0, 32, 32)))
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)

del deta_pipelines, epoch_schedule, loaders, train_dataset, val_dataset, num_train_images
