"""DETA with a tiny PE tower on generated shapes: learns from nothing on a CPU in minutes.

tools/train.py configs/shapes_deta_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.deta import *
    from ._base_.runtime import *

image_size = 128
data_root = "data/shapes"
max_iters = 900
generator = dict(num_train=1000, num_val=80)

model.merge(
    dict(
        data_preprocessor=dict(pad_size_divisor=image_size),
        backbone=dict(
            arch=dict(
                patch_size=8,
                width=128,
                layers=6,
                heads=4,
                mlp_ratio=4.0,
                image_size=64,
                ls_init_value=None,
                use_ln_post=False,
                pool_type="none",
            ),
            img_size=image_size,
            patch_size=8,
            grid_size=None,
            window_size=8,
            global_blocks=(2, 5),
            rope_reference_grid=8,
            drop_path_rate=0.0,
            with_cp=False,
            init_cfg=None,
        ),
        neck=dict(in_channels=128),
        bbox_head=dict(num_classes=8),
        embed_dims=128,
        num_heads=4,
        feedforward_channels=256,
        num_points=2,
        encoder_layers=1,
        decoder_layers=3,
        num_queries=100,
        train_cfg=dict(second_stage=dict(max_positives=100 // 4)),
        test_cfg=dict(max_per_img=50),
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
            dict(type="LoadAnnotations", with_bbox=True),
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
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val.json", metric="bbox")
test_evaluator = val_evaluator

optim_wrapper.merge(
    dict(
        optimizer=dict(lr=4e-4),
        clip_grad=dict(max_norm=1.0),
        paramwise_cfg=dict(decay_rate=1.0),  # nothing is trained before
    )
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min_ratio=0.01),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
default_hooks.merge(dict(checkpoint=dict(interval=max_iters), logger=dict(interval=20)))
