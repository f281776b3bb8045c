"""Mask R-CNN with a tiny PE tower on generated shapes: learns from nothing on a CPU in minutes.

tools/train.py configs/shapes_maskrcnn_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.maskrcnn import *
    from ._base_.runtime import *

image_size = 128
data_root = "data/shapes"
max_iters = 1200
generator = dict(num_train=1000, num_val=80)

model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(
            arch=dict(
                patch_size=8,
                width=128,
                layers=4,
                heads=4,
                mlp_ratio=4.0,
                image_size=64,
                ls_init_value=None,
                use_ln_post=False,
                pool_type="none",
            ),
            img_size=image_size,
            patch_size=8,
            window_size=8,
            global_blocks=(1, 3),
            rope_reference_grid=8,
            drop_path_rate=0.0,
            with_cp=False,
            init_cfg=None,
        ),
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

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="pe_dense.ShapesDataset",
        data_root=data_root,
        generator=generator,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"]),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="pe_dense.ShapesDataset",
        data_root=data_root,
        generator=generator,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(image_size, image_size), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=25), checkpoint=dict(interval=400)))
