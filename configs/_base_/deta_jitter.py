"""Image pipelines of DETA: its jitter of sizes to train, long side at most the image size to test; boxes only."""

from mmengine.config import read_base

with read_base():
    from .large_scale_jitter import *

image_size = 1024

train_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="pe_dense.DETAJitter", image_size=image_size),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", **resizing),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
# Of 1824 px: 1728, 1536 and 1344 as published, each mirrored, too.
tta_pipeline[1].transforms[0] = [
    dict(type="RandomResize", ratio_range=(ratio, ratio), **resizing) for ratio in (1.0, 0.9474, 0.8422, 0.7369)
]
