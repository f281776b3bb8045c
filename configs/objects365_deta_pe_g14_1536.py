"""DETA with PE Spatial G, stage 2 of 4: Objects365 at 1536 px, 6 epochs from stage 1's weights, new classifiers.

    tools/train.py configs/objects365_deta_pe_g14_1536.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (128 images per step in total).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.deta import *
    from ._base_.deta_schedule import epoch_schedule
    from ._base_.detection_data import deta_pipelines, loaders
    from ._base_.objects365 import *
    from ._base_.runtime import *

image_size = 1536
default_hooks.visualization = dict(type="DetVisualizationHook")
model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(img_size=image_size, init_cfg=None),
        bbox_head=dict(num_classes=num_classes),
        # The published script starts with new classifiers although the classes are those of stage 1; True keeps them.
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/objects365_deta_pe_g14_1024", keep_classifier=False),
    )
)
train_pipeline, test_pipeline, tta_pipeline = deta_pipelines(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
optim_wrapper.merge(dict(optimizer=dict(lr=5e-5)))
# The script's drop; the paper's is after 5.
max_iters, param_scheduler, train_cfg, auto_scale_lr = epoch_schedule(
    num_train_images, batch_size=128, epochs=6, drop_after=4
)

del deta_pipelines, epoch_schedule, loaders, train_dataset, val_dataset, num_train_images
