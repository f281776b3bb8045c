"""DETA on PE-Mini-Spatial, on generated shapes, on a CPU in minutes.

tools/train.py configs/shapes_deta_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.deta import *
    from ._base_.detection_data import shapes_pipelines
    from ._base_.mini_tower import *
    from ._base_.runtime import *
    from ._base_.shapes import *
    from ._base_.shapes_schedule import *

model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(mini_tower, _delete_=True),
        neck=dict(in_channels=128),
        bbox_head=dict(num_classes=8),
        embed_dims=128,
        num_heads=4,
        feedforward_channels=256,
        num_points=2,
        encoder_layers=1,
        decoder_layers=3,
        num_queries=100,
    )
)

tta_model.merge(dict(min_sides=(0, 0), num_queries=200))

train_pipeline, test_pipeline, tta_pipeline = shapes_pipelines(image_size, with_mask=False)
train_dataloader, val_dataloader = instance_loaders(train_pipeline, test_pipeline)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val.json", metric="bbox")
test_evaluator = val_evaluator
del instance_loaders, shapes_loader, shapes_pipelines

optim_wrapper.merge(
    dict(
        optimizer=dict(lr=6e-4),
        constructor="pe_dense.DETAOptimWrapperConstructor",
        paramwise_cfg=dict(
            decay_rate=0.9, offsets_rate=1.0
        ),  # with a factor of 0.1 the offsets would hardly change in a short run
    )
)
default_hooks.merge(
    dict(
        logger=dict(interval=25),
        checkpoint=dict(interval=400),
        visualization=dict(type="DetVisualizationHook"),
    )
)
