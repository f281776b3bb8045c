"""COCO 2017 for DETA: boxes only, and images without objects are kept, as in the published data set."""

from mmengine.config import read_base

with read_base():
    from .coco import *
    from .deta_jitter import *

train_dataloader.merge(dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline)))
val_dataloader.merge(dict(dataset=dict(pipeline=test_pipeline)))
test_dataloader = val_dataloader
val_evaluator.merge(dict(metric="bbox"))
test_evaluator = val_evaluator
