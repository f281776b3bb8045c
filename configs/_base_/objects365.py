"""Objects365 v2: boxes of 365 classes. All paths start from `data_root`."""

data_root = "data/objects365"
data_source = dict(
    name="Objects365 v2",
    url="https://www.objects365.org/download.html",
    layout="annotations/zhiyuan_objv2_{train_fixmiss,val}.json, train/ and val/ (with the patches' folders)",
)
num_classes = 365
num_train_images = 1_742_289

train_dataset = dict(
    type="pe_dense.Objects365Dataset",
    data_root=data_root,
    # The published run's file; it is also found under the name of the public download.
    ann_file="annotations/zhiyuan_objv2_train_fixmiss.json",
    ann_file_alternatives=["annotations/zhiyuan_objv2_train.json"],
    data_prefix=dict(img="train/"),
    filter_cfg=dict(filter_empty_gt=False),
)
val_dataset = dict(
    type="pe_dense.Objects365Dataset",
    data_root=data_root,
    ann_file="annotations/zhiyuan_objv2_val.json",
    data_prefix=dict(img="val/"),
)
val_evaluator = dict(type="pe_dense.CocoMetric", ann_file=f"{data_root}/{val_dataset['ann_file']}", metric="bbox")
test_evaluator = val_evaluator
