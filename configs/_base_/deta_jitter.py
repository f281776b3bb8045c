"""Image pipelines of DETA: random sizes in training, a longer side of `image_size - 32` px in testing; boxes only.

The EXIF orientation of images is ignored, as in the published data set.
"""

image_size = 1024
load_image = dict(type="pe_dense.LoadImage", ignore_orientation=True)

train_pipeline = [
    dict(load_image),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="pe_dense.DETAJitter", image_size=image_size),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(load_image),
    dict(type="pe_dense.DETAResize", image_size=image_size),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
view_meta_keys = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale",
    "scale_factor",
    "flip",
    "flip_direction",
)
tta_pipeline = [
    dict(load_image),
    dict(type="pe_dense.DETAResize", image_size=image_size),
    dict(
        type="TestTimeAug",
        transforms=[
            # Longer sides of 1792, 1728, 1536 and 1344 px at 1824 px, as published; at other sizes in proportion.
            [dict(type="pe_dense.DETAView", image_size=image_size, ratio=n / 19) for n in (19, 18, 16, 14)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PackDetInputs", meta_keys=view_meta_keys)],
        ],
    ),
]
