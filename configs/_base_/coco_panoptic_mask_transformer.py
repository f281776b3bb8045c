"""Mask transformers on panoptic COCO at 640 px: data and model without tower and head."""

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
data_source.merge(
    dict(layout="annotations/panoptic_{train,val}2017.json, annotations/panoptic_{train,val}2017/*.png and images")
)
annotations = dict(type="LoadPanopticAnnotations", with_bbox=True, with_mask=True, with_seg=True)
train_pipeline, test_pipeline = object_pipelines(image_size, annotations, pack_to_test())
train_dataset, val_dataset = (
    dict(
        type="pe_dense.CocoPanopticDataset",
        data_root=data_root,
        ann_file=f"annotations/panoptic_{part}2017.json",
        data_prefix=dict(img=f"{part}2017/", seg=f"annotations/panoptic_{part}2017/"),
    )
    for part in ("train", "val")
)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
train_dataloader["batch_size"] = 4
val_evaluator = dict(
    type="CocoPanopticMetric",
    ann_file=f"{data_root}/annotations/panoptic_val2017.json",
    seg_prefix=f"{data_root}/annotations/panoptic_val2017/",
)
test_evaluator = val_evaluator
model = object_model(image_size, panoptic_on=True, object_mask_thr=0.8, iou_thr=0.8)
num_queries, mask_classes = 200, dict(num_things_classes=80, num_stuff_classes=53)
inferencer = dict(type="pe_dense.PanopticPredictor")
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
sync_bn = "torch"  # statistics over all GPUs
auto_scale_lr = dict(enable=False, base_batch_size=16)
del loaders, num_train_images, object_model, object_pipelines, pack_to_test, train_dataset, val_dataset
