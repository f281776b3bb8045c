"""Image pipelines of the detectors: large-scale jitter to train, long side at most the image size to test."""

image_size = 1024
# Pillow, as in the published code: where an image shrinks it averages over pixels, OpenCV leaves them out.
resizing = dict(scale=(image_size, image_size), keep_ratio=True, backend="pillow")

train_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", ratio_range=(0.1, 2.0), **resizing),
    dict(
        type="pe_dense.FixedSizeCrop",
        crop_size=(image_size, image_size),
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", **resizing),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
# `--tta`: two sizes, each mirrored, too.
tta_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="RandomResize", ratio_range=(ratio, ratio), **resizing) for ratio in (1.0, 0.75)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        "img_id",
                        "img_path",
                        "ori_shape",
                        "img_shape",
                        "scale",
                        "scale_factor",
                        "flip",
                        "flip_direction",
                    ),
                )
            ],
        ],
    ),
]
