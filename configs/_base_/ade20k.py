"""ADE20k's 150 classes. All paths start from `data_root`.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

data_root = "data/ade20k"
data_source = dict(
    name="ADE20k (scene parsing, 2016)",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    layout="images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
)
num_classes = 150
# Images have the same number of patches in all towers; the option `tower=` sets these sizes by the tower's patches.
sizes_by_patch = dict(patch14=dict(image_size=448), patch16=dict(image_size=512))

val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator


def probe_of(tower, image_size):
    """Return changes of the model for another tower and image size."""
    return dict(
        data_preprocessor=dict(size=(image_size, image_size)),
        backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}")),
        test_cfg=dict(crop_size=(image_size, image_size)),
    )


def ade20k_data(image_size):
    """Create data loaders of training and validation, and the pipeline of `--tta` with DINOv2's five sizes and flips.

    Args:
        image_size: pixels of the short side, of a training crop and of a window in testing; a multiple of the patch.
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

    dataset = dict(type="ADE20KDataset", data_root=data_root)
    train = dict(
        batch_size=16,
        num_workers=8,
        persistent_workers=True,
        sampler=dict(type="InfiniteSampler", shuffle=True),
        dataset=dict(
            dataset,
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            pipeline=train_pipeline,
        ),
    )
    val = dict(
        batch_size=1,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            dataset,
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            pipeline=[load, dict(type="Resize", **size), labels, pack],
        ),
    )
    return train, val, tta_pipeline
