"""Mask R-CNN with PE Core B on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_core_b16.py --launcher pytorch

Recipe: not published for this tower: that of the Spatial tower of its size.
"""

from mmengine.config import read_base

with read_base():
    from .lvis_maskrcnn_pe_b16 import *

model.merge(
    dict(
        backbone=dict(
            arch="PE-Core-B16-224",
            grid_size=32,  # learned positions resampled to the grid of a window
            init_cfg=dict(checkpoint="hf://facebook/PE-Core-B16-224"),
        )
    )
)
