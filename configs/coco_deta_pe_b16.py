"""DETA with PE Spatial B on COCO at 1024 px, 24 epochs, straight from the tower's weights.

    tools/train.py configs/coco_deta_pe_b16.py --launcher pytorch

Recipe: not published for this size: as `_l14`, with ViTDet-B's stochastic depth and decay.
"""

from mmengine.config import read_base

with read_base():
    from .coco_deta_pe_l14 import *

model.merge(
    dict(
        backbone=dict(
            arch="PE-Spatial-B16-512",
            global_blocks=(2, 5, 8, 11),
            drop_path_rate=0.1,
            init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-B16-512"),
        ),
        neck=dict(in_channels=768),
    )
)
optim_wrapper.merge(dict(paramwise_cfg=dict(decay_rate=0.7)))
