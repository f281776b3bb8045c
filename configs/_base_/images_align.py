"""Spatial alignment on a folder of images."""

from mmengine.config import read_base

with read_base():
    from .align import *
    from .align_schedule import *
    from .image_folder import *
    from .runtime import *

train_pipeline = image_pipeline()
train_dataloader.batch_size = images_per_gpu
train_dataloader.dataset.pipeline = train_pipeline
default_hooks.merge(dict(checkpoint=dict(interval=checkpoint_interval)))
del image_pipeline
