"""Depth on NYUv2: a DPT head on the last layer of PE Spatial B.

    tools/train.py configs/nyu_dpt_pe_b16.py

Options as in nyu_dpt_pe_g14.py. No figure is published for this size.
"""

from mmengine.config import read_base

with read_base():
    from .nyu_dpt_pe_g14 import *

tower = "PE-Spatial-B16-512"
model.merge(dict(backbone=dict(arch=tower, out_indices=(-1,), init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
