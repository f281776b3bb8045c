"""KITTI with the depth maps of its depth benchmark, in Eigen's split. All paths start from `data_root`."""

data_root = "data/kitti"
data_source = dict(
    name="KITTI (raw data, with annotated depth maps)",
    url="https://www.cvlibs.net/datasets/kitti/eval_depth.php and the lists of "
    "https://github.com/zhyever/Monocular-Depth-Estimation-Toolbox (splits)",
    layout="input/<date>/<drive>/image_02/data/*.png, "
    "data_depth_annotated/{train,val}/<drive>/proj_depth/groundtruth/image_02/*.png and kitti_eigen_{train,test}.txt",
)
min_depth, max_depth = 1e-3, 80.0  # meters

load_crop = [
    dict(type="pe_dense.LoadImage"),
    dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1 / 256),
    dict(type="pe_dense.CropBottomCenter", size=(352, 1216)),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="pe_dense.KITTIDepthDataset",
        data_root=data_root,
        ann_file="kitti_eigen_train.txt",
        data_prefix=dict(img_path="input", depth_map_path="data_depth_annotated"),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="pe_dense.KITTIDepthDataset",
        data_root=data_root,
        ann_file="kitti_eigen_test.txt",
        data_prefix=dict(img_path="input", depth_map_path="data_depth_annotated"),
        test_mode=True,
        pipeline=[*load_crop, dict(type="PackSegInputs")],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.DepthMetric", min_depth_eval=min_depth, max_depth_eval=max_depth, crop_type="garg_crop"
)
test_evaluator = val_evaluator
