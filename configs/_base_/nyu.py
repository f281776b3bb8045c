"""NYU depth v2 as mmseg reads it, with Eigen's 654 test images. All paths start from `data_root`."""

data_root = "data/nyu"
data_source = dict(
    name="NYU depth v2 (BTS's selection)",
    url="https://github.com/cleinc/bts (mmsegmentation's docs/en/user_guides/2_dataset_prepare.md has a packed copy)",
    layout="images/{train,test}/*.jpg and annotations/{train,test}/*.png, 16 bits, in millimeters",
)
images_per_step = 16  # over all GPUs
epoch = 24_231 // images_per_step
min_depth, max_depth = 1e-3, 10.0  # meters
crop_size = (448, 560)  # of 480 x 640; whole patches of 14 and of 16 px

# For the pipelines of DINOv2 and DINOv3, in which images lose the white border.
load_without_border = [
    dict(type="pe_dense.LoadImage"),
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
    dict(type="pe_dense.CropBox", box=(43, 45, 608, 472)),
]
border_crop_size = (416, 544)

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
    # For images of other sizes than NYU's: a short side of 480 px, no limit for the long side.
    dict(type="Resize", scale=(100_000, 480), keep_ratio=True),
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1e-3),
    dict(type="PackSegInputs"),
]

train_dataloader = dict(
    batch_size=images_per_step,
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
