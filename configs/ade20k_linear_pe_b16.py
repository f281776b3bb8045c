"""Linear probe of PE Spatial B on ADE20k: published mIoU 44.4 (README of the towers).

    tools/train.py configs/ade20k_linear_pe_b16.py

Options as in ade20k_linear_pe_g14.py.
"""

from mmengine.config import read_base

with read_base():
    from .ade20k_linear_pe_g14 import *

tower = "PE-Spatial-B16-512"
image_size = 512
model.merge(
    dict(
        data_preprocessor=dict(size=(image_size, image_size)),
        backbone=dict(arch=tower, out_indices=(-1,), init_cfg=dict(checkpoint=f"hf://facebook/{tower}")),
        test_cfg=dict(crop_size=(image_size, image_size)),
    )
)
train_dataloader.dataset.pipeline[2].scale = (UNBOUNDED, image_size)
train_dataloader.dataset.pipeline[3].crop_size = (image_size, image_size)
val_dataloader.dataset.pipeline[1].scale = (UNBOUNDED, image_size)
test_dataloader = val_dataloader
tta_pipeline[1].transforms[0] = [dict(view, scale=(UNBOUNDED, image_size)) for view in tta_pipeline[1].transforms[0]]
