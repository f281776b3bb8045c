"""Sizes, data loaders and metric of linear segmentation probes on photos.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

# Images have the same number of patches in all towers; the option `tower=` sets these sizes by the tower's patches.
sizes_by_patch = dict(patch14=dict(image_size=448), patch16=dict(image_size=512))

val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator


def segmentation_data(image_size, dataset, train, val, num_classes):
    """Create data loaders of training and validation, and the pipeline of `--tta` with DINOv2's five sizes and flips.

    Args:
        image_size: pixels of the short side, of a training crop and of a window in testing; a multiple of the patch.
        dataset: arguments of both data sets of mmseg.
        train, val: further arguments of each.
        num_classes: of the label maps.
    """
    load, labels, pack = (
        dict(type="pe_dense.LoadImage"),
        dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
        dict(type="PackSegInputs"),
    )
    size = dict(scale=(100_000, image_size), keep_ratio=True)  # the long side of an image has no limit
    train_pipeline = [
        load,
        labels,
        dict(type="RandomResize", ratio_range=(0.5, 2.0), **size),
        dict(type="RandomCrop", crop_size=(image_size, image_size), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        pack,
    ]
    resizes = [dict(type="RandomResize", ratio_range=(ratio, ratio), **size) for ratio in (1.0, 1.32, 1.73, 2.28, 3.0)]
    flips = [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)]
    tta_pipeline = [load, dict(type="TestTimeAug", transforms=[resizes, flips, [labels], [pack]])]
    train_dataloader = dict(
        batch_size=16,
        num_workers=8,
        persistent_workers=True,
        sampler=dict(type="InfiniteSampler", shuffle=True),
        dataset=dict(dataset, **train, pipeline=train_pipeline),
    )
    val_dataloader = dict(
        batch_size=1,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(dataset, **val, pipeline=[load, dict(type="Resize", **size), labels, pack]),
    )
    return train_dataloader, val_dataloader, tta_pipeline
