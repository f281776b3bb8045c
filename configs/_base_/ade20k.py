"""ADE20k's 150 classes. Everything hangs on `data_root`."""

image_size = 448  # px of the short side, of a training crop and of a window of the test; a multiple of the patch

data_root = "data/ade20k"
data_source = dict(
    name="ADE20k (scene parsing, 2016)",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    layout="images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
)
num_classes = 150
UNBOUNDED = 100_000  # the long side of a resized image, in px

train_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
    dict(type="RandomResize", scale=(UNBOUNDED, image_size), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(image_size, image_size), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", scale=(UNBOUNDED, image_size), keep_ratio=True),
    dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
    dict(type="PackSegInputs"),
]
# `--tta`: DINOv2's five sizes, each mirrored, too.
tta_model = dict(type="SegTTAModel")
tta_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="RandomResize", scale=(UNBOUNDED, image_size), ratio_range=(ratio, ratio), keep_ratio=True)
                for ratio in (1.0, 1.32, 1.73, 2.28, 3.0)
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="pe_dense.LoadLabelMap", num_classes=num_classes)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ADE20KDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="pe_dense.IoUMetric")
test_evaluator = val_evaluator
