"""Linear probe of PE Spatial S on ADE20k: published mIoU 37.5 (README of the towers).

    tools/train.py configs/ade20k_linear_pe_s16.py

Options as in ade20k_linear_pe_g14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k import ade20k_data, probe_of
    from ._base_.ade20k_linear import *
    from ._base_.segmentation_data import segmentation_data

tower = "PE-Spatial-S16-512"
image_size = sizes_by_patch.patch16.image_size
model.merge(probe_of(tower, image_size))
train_dataloader, val_dataloader, tta_pipeline = ade20k_data(segmentation_data, image_size)
test_dataloader = val_dataloader
del ade20k_data, probe_of, segmentation_data
