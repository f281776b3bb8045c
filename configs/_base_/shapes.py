"""Generated shapes: made in `data_root` on first use. Everything hangs on `data_root`."""

from mmengine.config import read_base

with read_base():
    from .large_scale_jitter import tta_pipeline

image_size = 128
data_root = "data/shapes"
generator = dict(num_train=1000, num_val=80)

train_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"]),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", scale=(image_size, image_size), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
tta_pipeline[1].transforms[0] = [
    dict(type="RandomResize", scale=(image_size, image_size), ratio_range=(ratio, ratio), keep_ratio=True)
    for ratio in (1.0, 0.75)
]

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
        pipeline=train_pipeline,
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
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
