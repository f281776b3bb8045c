"""Mask R-CNN with PE Core T on COCO, 100 epochs.

    tools/train.py configs/coco_maskrcnn_pe_core_t16.py --launcher pytorch

Recipe: not published for this tower: that of the Spatial tower of its size.
"""

from mmengine.config import read_base

with read_base():
    from .coco_maskrcnn_pe_t16 import *

model.merge(
    dict(
        backbone=dict(
            arch="PE-Core-T16-384",
            grid_size=32,  # learned positions resampled to the grid of a window
            init_cfg=dict(checkpoint="hf://facebook/PE-Core-T16-384"),
        )
    )
)
