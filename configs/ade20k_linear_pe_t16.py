"""Linear probe of PE Spatial T on ADE20k: published mIoU 27.6 (README of the towers).

    tools/train.py configs/ade20k_linear_pe_t16.py

Options as in ade20k_linear_pe_g14.py.
"""

from mmengine.config import read_base

with read_base():
    from .ade20k_linear_pe_b16 import *

tower = "PE-Spatial-T16-512"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
