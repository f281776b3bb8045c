"""Linear probe of PE Spatial L on ADE20k: published mIoU 48.1 (README of the towers).

    tools/train.py configs/ade20k_linear_pe_l14.py

Options as in ade20k_linear_pe_g14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_linear import *

tower = "PE-Spatial-L14-448"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
