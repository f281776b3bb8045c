"""Image pipelines and data loaders of detectors, as functions of the image size.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""


def loaders(train_dataset, train_pipeline, val_dataset, test_pipeline):
    """Create data loaders of training, validation and testing with one image per GPU."""
    workers = dict(batch_size=1, num_workers=4, persistent_workers=True)
    train = dict(
        workers,
        sampler=dict(type="InfiniteSampler", shuffle=True),
        dataset=dict(train_dataset, pipeline=train_pipeline),
    )
    val = dict(
        workers,
        drop_last=False,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(val_dataset, test_mode=True, pipeline=test_pipeline),
    )
    return train, val, val


def pack_to_test():
    """Create the last step of the pipelines of validation and testing."""
    return dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))


def augmented_views(resizes):
    """Create the step of `--tta` pipelines that resizes the image in several ways, with and without a flip."""
    meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale", "scale_factor", "flip", "flip_direction")
    return dict(
        type="TestTimeAug",
        transforms=[
            resizes,
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="PackDetInputs", meta_keys=meta_keys)],
        ],
    )


def large_scale_jitter(image_size):
    """Create pipelines of training, of testing with a longer side of `image_size` px, and of `--tta` with two sizes."""
    load = dict(type="pe_dense.LoadImage")
    # Pillow averages over pixels where an image is reduced, as the published code does; OpenCV skips pixels.
    size = dict(scale=(image_size, image_size), keep_ratio=True, backend="pillow")
    train = [
        load,
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False),
        dict(type="RandomFlip", prob=0.5),
        dict(type="RandomResize", ratio_range=(0.1, 2.0), **size),
        dict(
            type="pe_dense.FixedSizeCrop",
            crop_size=(image_size, image_size),
            recompute_bbox=True,
            allow_negative_crop=True,
        ),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
        dict(type="PackDetInputs"),
    ]
    test = [
        load,
        dict(type="Resize", **size),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        pack_to_test(),
    ]
    views = [dict(type="RandomResize", ratio_range=(ratio, ratio), **size) for ratio in (1.0, 0.75)]
    return train, test, [load, augmented_views(views)]


def deta_pipelines(image_size, ratios=(1.0, 18 / 19, 16 / 19, 14 / 19)):
    """DETA's pipelines of training with random sizes, of testing with a longer side of `image_size - 32` px, and of
    `--tta` with longer sides of `ratios` times `image_size`. Boxes only.

    The EXIF orientation of images is ignored, as in the published data set. The default ratios are the published ones
    of 1824 px: longer sides of 1792, 1728, 1536 and 1344 px.
    """
    load = dict(type="pe_dense.LoadImage", ignore_orientation=True)
    resize = dict(type="pe_dense.DETAResize", image_size=image_size)
    train = [
        load,
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="pe_dense.DETAJitter", image_size=image_size),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
        dict(type="PackDetInputs"),
    ]
    test = [load, resize, dict(type="LoadAnnotations", with_bbox=True), pack_to_test()]
    views = [dict(type="pe_dense.DETAView", image_size=image_size, ratio=ratio) for ratio in ratios]
    return train, test, [load, resize, augmented_views(views)]


def shapes_pipelines(image_size, with_mask=True):
    """Create pipelines of training, testing and `--tta` for generated shapes, which already have the right size."""
    load = dict(type="pe_dense.LoadImage")
    annotations = dict(type="LoadAnnotations", with_bbox=True, with_mask=with_mask)
    size = dict(scale=(image_size, image_size), keep_ratio=True)
    train = [
        load,
        annotations,
        dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"]),
        dict(type="PackDetInputs"),
    ]
    test = [load, dict(type="Resize", **size), annotations, pack_to_test()]
    views = [dict(type="RandomResize", ratio_range=(ratio, ratio), **size) for ratio in (1.0, 0.75)]
    return train, test, [load, augmented_views(views)]
