"""Mask R-CNN with PE Spatial T on LVIS v1, 100 epochs.

    tools/train.py configs/lvis_maskrcnn_pe_t16.py --launcher pytorch

Recipe: not published for this size: as `_b16`.
"""

from mmengine.config import read_base

with read_base():
    from .lvis_maskrcnn_pe_b16 import *

model.merge(
    dict(
        backbone=dict(
            arch="PE-Spatial-T16-512",
            init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-T16-512"),
        ),
        neck=dict(in_channels=192),
    )
)
