"""LVIS v1, on COCO's images. All paths start from `data_root`."""

data_root = "data/lvis"
data_source = dict(
    name="LVIS v1",
    url="https://www.lvisdataset.org/dataset",
    layout="annotations/lvis_v1_{train,val}.json, train2017/*.jpg and val2017/*.jpg (the images of COCO 2017)",
)
num_classes = 1203

train_dataset = dict(
    type="pe_dense.LVISDataset",
    data_root=data_root,
    ann_file="annotations/lvis_v1_train.json",
    data_prefix=dict(img=""),
    filter_cfg=dict(filter_empty_gt=True, min_size=1),
)
val_dataset = dict(
    type="pe_dense.LVISDataset",
    data_root=data_root,
    ann_file="annotations/lvis_v1_val.json",
    data_prefix=dict(img=""),
)
val_evaluator = dict(
    type="pe_dense.LVISMetric", ann_file=f"{data_root}/{val_dataset['ann_file']}", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
