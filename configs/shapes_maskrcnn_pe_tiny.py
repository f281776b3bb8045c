"""Mask R-CNN on PE-Mini-Spatial, on generated shapes, on a CPU in minutes: the detector of `make demo`.

tools/train.py configs/shapes_maskrcnn_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_data import shapes_pipelines
    from ._base_.maskrcnn import *
    from ._base_.mini_tower import *
    from ._base_.runtime import *
    from ._base_.shapes import *
    from ._base_.shapes_schedule import *

model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(mini_tower, _delete_=True, frozen=True),
        neck=dict(in_channels=128, out_channels=64, scales=(2.0, 1.0, 0.5), stride=8),
        rpn_head=dict(
            in_channels=64,
            feat_channels=64,
            num_convs=1,
            anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28),
            bbox_head=dict(
                type="ConvFCBBoxHead",
                num_shared_convs=2,
                num_shared_fcs=1,
                in_channels=64,
                conv_out_channels=64,
                fc_out_channels=256,
                num_classes=8,
            ),
            mask_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16], finest_scale=28),
            mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=8),
        ),
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=300, max_per_img=100),
            rcnn=dict(sampler=dict(num=32)),
        ),
        test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)),
    )
)

train_pipeline, test_pipeline, tta_pipeline = shapes_pipelines(image_size)
train_dataloader, val_dataloader = instance_loaders(train_pipeline, test_pipeline)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
del instance_loaders, shapes_loader, shapes_pipelines

default_hooks.merge(
    dict(
        logger=dict(interval=25),
        checkpoint=dict(interval=350),
        visualization=dict(type="DetVisualizationHook"),
    )
)
max_iters = 720  # five minutes, with everything else that `make demo` does
optim_wrapper.merge(dict(type="AmpOptimWrapper", dtype="bfloat16"))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg.merge(dict(max_iters=max_iters, val_interval=max_iters))
