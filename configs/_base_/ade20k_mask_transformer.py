"""Mask transformers on ADE20k's 150 classes at 512 px: data and model without tower and head."""

from mmengine.config import read_base

with read_base():
    from .ade20k import *
    from .mask_transformers import semantic_model, semantic_pipeline
    from .runtime import *
    from .segmentation_data import *
    from .semantic_masks import *

image_size = sizes_by_patch.patch16.image_size  # all towers get patches of 16 px
train_dataloader, val_dataloader, _ = ade20k_data(segmentation_data, image_size)
train_dataloader["dataset"]["pipeline"] = semantic_pipeline(image_size, num_classes)
test_dataloader = val_dataloader
model = semantic_model(image_size)
mask_classes = dict(num_things_classes=0, num_stuff_classes=num_classes)
del ade20k_data, probe_of, segmentation_data, semantic_model, semantic_pipeline, sizes_by_patch
