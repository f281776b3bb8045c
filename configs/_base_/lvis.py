"""LVIS v1 (its images are COCO's). Everything hangs on `data_root`."""

from mmengine.config import read_base

with read_base():
    from .detection_loaders import *
    from .large_scale_jitter import *

data_root = "data/lvis"
data_source = dict(
    name="LVIS v1",
    url="https://www.lvisdataset.org/dataset",
    layout="annotations/lvis_v1_{train,val}.json, train2017/*.jpg and val2017/*.jpg (the images of COCO 2017)",
)

train_dataloader.merge(
    dict(
        sampler=dict(_delete_=True, type="pe_dense.RepeatFactorSampler", threshold=1e-3),
        dataset=dict(
            type="pe_dense.LVISDataset",
            data_root=data_root,
            ann_file="annotations/lvis_v1_train.json",
            data_prefix=dict(img=""),
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
            pipeline=train_pipeline,
        ),
    )
)
val_dataloader.merge(
    dict(
        dataset=dict(
            type="pe_dense.LVISDataset",
            data_root=data_root,
            ann_file="annotations/lvis_v1_val.json",
            data_prefix=dict(img=""),
            test_mode=True,
            pipeline=test_pipeline,
        ),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.LVISMetric", ann_file=f"{data_root}/annotations/lvis_v1_val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
