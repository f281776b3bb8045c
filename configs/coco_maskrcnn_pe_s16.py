"""Mask R-CNN with PE Spatial S on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_s16.py --launcher pytorch

Recipe: not published for this size: as `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from .coco_maskrcnn_pe_b16 import *

model.merge(
    dict(
        backbone=dict(
            arch="PE-Spatial-S16-512",
            init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-S16-512"),
        ),
        neck=dict(in_channels=384),
    )
)
