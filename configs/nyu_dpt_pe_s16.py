"""Depth on NYUv2: a DPT head on the last layer of PE Spatial S.

    tools/train.py configs/nyu_dpt_pe_s16.py

Options as in nyu_dpt_pe_g14.py. No figure is published for this size.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.nyu_dpt import *

tower = "PE-Spatial-S16-512"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
