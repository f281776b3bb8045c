"""Linear probe of PE Spatial S on ADE20k: published mIoU 37.5 (README of the towers).

    tools/train.py configs/ade20k_linear_pe_s16.py

Options as in ade20k_linear_pe_g14.py.
"""

from mmengine.config import read_base

with read_base():
    from .ade20k_linear_pe_b16 import *

tower = "PE-Spatial-S16-512"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
