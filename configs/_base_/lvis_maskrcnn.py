"""Mask R-CNN on LVIS v1 by the published recipe: federated loss, low threshold, 300 detections."""

from mmengine.config import read_base

with read_base():
    from .lvis import *
    from .maskrcnn import *
    from .runtime import *

model.merge(
    dict(
        roi_head=dict(
            bbox_head=dict(
                num_classes=1203,
                loss_cls=dict(
                    type="pe_dense.FederatedLoss",
                    num_classes=1203,
                    num_sampled=50,
                    ann_file=f"{data_root}/annotations/lvis_v1_train.json",
                ),
            ),
            mask_head=dict(num_classes=1203),
        ),
        test_cfg=dict(rcnn=dict(score_thr=0.02, max_per_img=300)),
    )
)
