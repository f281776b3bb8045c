"""COCO 2017 with instance masks. Everything hangs on `data_root`."""

from mmengine.config import read_base

with read_base():
    from .detection_loaders import *
    from .large_scale_jitter import *

data_root = "data/coco"
data_source = dict(
    name="COCO 2017",
    url="https://cocodataset.org/#download",
    layout="annotations/instances_{train,val}2017.json, train2017/*.jpg and val2017/*.jpg",
)

train_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.CocoDataset",
            data_root=data_root,
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017/"),
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.CocoDataset",
            data_root=data_root,
            ann_file="annotations/instances_val2017.json",
            data_prefix=dict(img="val2017/"),
            test_mode=True,
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.CocoMetric", ann_file=f"{data_root}/annotations/instances_val2017.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
