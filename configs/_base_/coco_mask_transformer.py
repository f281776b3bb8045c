"""Mask transformers on COCO's objects at 640 px: data and model without tower and head."""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .detection_data import loaders, pack_to_test
    from .mask_transformers import object_model, object_pipelines
    from .runtime import *

default_scope = "mmdet"
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
default_hooks.visualization = dict(type="DetVisualizationHook")
image_size = 640
annotations = dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
train_pipeline, test_pipeline = object_pipelines(image_size, annotations, pack_to_test())
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
train_dataloader["batch_size"] = 4
val_evaluator.merge(dict(metric="segm"))
model = object_model(image_size, panoptic_on=False, instance_on=True, max_per_image=100)
num_queries, mask_classes = 200, dict(num_things_classes=80, num_stuff_classes=0)
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
sync_bn = "torch"  # statistics over all GPUs
auto_scale_lr = dict(enable=False, base_batch_size=16)
del loaders, num_train_images, object_model, object_pipelines, pack_to_test, train_dataset, val_dataset
