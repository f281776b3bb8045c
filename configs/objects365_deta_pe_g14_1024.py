"""DETA with PE Spatial G, stage 1 of 4: Objects365 at 1024 px, 12 epochs.

    tools/train.py configs/objects365_deta_pe_g14_1024.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (256 images per step in total).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.deta import *
    from ._base_.deta_schedule import epoch_schedule
    from ._base_.detection_data import deta_pipelines, loaders
    from ._base_.objects365 import *
    from ._base_.runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
model.merge(dict(bbox_head=dict(num_classes=num_classes)))
train_pipeline, test_pipeline, tta_pipeline = deta_pipelines(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
max_iters, param_scheduler, train_cfg, auto_scale_lr = epoch_schedule(
    num_train_images, batch_size=256, epochs=12, drop_after=10
)

del deta_pipelines, epoch_schedule, loaders, train_dataset, val_dataset, num_train_images
