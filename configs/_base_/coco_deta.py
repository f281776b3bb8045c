"""DETA on COCO 2017 at 1024 px, 24 epochs. Boxes only; images without objects are kept, as in the published
data set.
"""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .deta import *
    from .deta_schedule import epoch_schedule
    from .detection_data import deta_pipelines, loaders
    from .runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
train_dataset.filter_cfg.filter_empty_gt = False
val_evaluator.metric = test_evaluator.metric = "bbox"
train_pipeline, test_pipeline, tta_pipeline = deta_pipelines(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
max_iters, param_scheduler, train_cfg, auto_scale_lr = epoch_schedule(
    num_train_images, batch_size=64, epochs=24, drop_after=20
)

del deta_pipelines, epoch_schedule, loaders, train_dataset, val_dataset, num_train_images
