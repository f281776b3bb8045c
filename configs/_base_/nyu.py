"""NYU depth v2 as mmseg has it: 24,231 pictures to train, Eigen's 654 to test. Everything hangs on `data_root`."""

data_root = "data/nyu"
data_source = dict(
    name="NYU depth v2 (BTS's selection)",
    url="https://github.com/cleinc/bts (mmsegmentation's docs/en/user_guides/2_dataset_prepare.md has a packed copy)",
    layout="images/{train,test}/*.jpg and annotations/{train,test}/*.png, 16 bits, in millimeters",
)
min_depth, max_depth = 1e-3, 10.0  # meters
crop_size = (448, 560)  # of 480 x 640; whole patches of 14 and of 16 px
UNBOUNDED = 100_000  # the long side of a resized image, in px

train_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="pe_dense.LoadImage"),
    dict(type="Resize", scale=(UNBOUNDED, 480), keep_ratio=True),  # other images than NYU's, which have this size
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
    dict(type="PackSegInputs"),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="NYUDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/train", depth_map_path="annotations/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="NYUDataset",
        data_root=data_root,
        data_prefix=dict(img_path="images/test", depth_map_path="annotations/test"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.DepthMetric", min_depth_eval=min_depth, max_depth_eval=max_depth, crop_type="nyu_crop"
)
test_evaluator = val_evaluator
