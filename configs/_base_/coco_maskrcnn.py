"""Mask R-CNN on COCO by the published recipe."""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .detection_data import large_scale_jitter, loaders
    from .maskrcnn import *
    from .runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
train_pipeline, test_pipeline, tta_pipeline = large_scale_jitter(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)

smaller_towers_lr = 1e-4
del large_scale_jitter, loaders, train_dataset, val_dataset, num_train_images
