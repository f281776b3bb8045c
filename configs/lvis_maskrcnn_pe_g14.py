"""Mask R-CNN with PE Spatial G on LVIS v1, 75 epochs: published box/mask AP 54.2/49.3.

    tools/train.py configs/lvis_maskrcnn_pe_g14.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (1024 px, windows of 32, 64 images a step).
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule import *
    from ._base_.lvis import *
    from ._base_.maskrcnn import *
    from ._base_.runtime import *

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

max_iters = 184_375 * 3 // 4  # 75 epochs
train_cfg.merge(dict(max_iters=max_iters))
param_scheduler[1].merge(dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27]))
