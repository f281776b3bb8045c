"""Mask R-CNN on LVIS v1 by the published recipe: federated loss, low threshold, 300 detections."""

from mmengine.config import read_base

with read_base():
    from .detection_data import large_scale_jitter, loaders
    from .lvis import *
    from .maskrcnn import *
    from .runtime import *

default_hooks.visualization = dict(type="DetVisualizationHook")
train_pipeline, test_pipeline, tta_pipeline = large_scale_jitter(image_size)
train_dataloader, val_dataloader, test_dataloader = loaders(train_dataset, train_pipeline, val_dataset, test_pipeline)
train_dataloader["sampler"] = dict(type="pe_dense.RepeatFactorSampler", threshold=1e-3)
model.merge(
    dict(
        roi_head=dict(
            bbox_head=dict(
                num_classes=num_classes,
                loss_cls=dict(
                    type="pe_dense.FederatedLoss",
                    num_classes=num_classes,
                    num_sampled=50,
                    ann_file=f"{data_root}/{train_dataset.ann_file}",
                ),
            ),
            mask_head=dict(num_classes=num_classes),
        ),
        test_cfg=dict(rcnn=dict(score_thr=0.02, max_per_img=300)),
    )
)

smaller_towers_lr = 2e-4
del large_scale_jitter, loaders, train_dataset, val_dataset
