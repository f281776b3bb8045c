"""COCO 2017 with instance masks. All paths start from `data_root`."""

data_root = "data/coco"
data_source = dict(
    name="COCO 2017",
    url="https://cocodataset.org/#download",
    layout="annotations/instances_{train,val}2017.json, train2017/*.jpg and val2017/*.jpg",
)
num_train_images = 118_287

train_dataset = dict(
    type="pe_dense.CocoDataset",
    data_root=data_root,
    ann_file="annotations/instances_train2017.json",
    data_prefix=dict(img="train2017/"),
    filter_cfg=dict(filter_empty_gt=True, min_size=1),
)
val_dataset = dict(
    type="pe_dense.CocoDataset",
    data_root=data_root,
    ann_file="annotations/instances_val2017.json",
    data_prefix=dict(img="val2017/"),
)
val_evaluator = dict(
    type="pe_dense.CocoMetric", ann_file=f"{data_root}/{val_dataset['ann_file']}", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
