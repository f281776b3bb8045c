"""Spatial alignment of PE Core B by the recipe of G. Published Spatial B was distilled: images_distill_pe_b16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/images_align_pe_b16.py --launcher pytorch

Fold LayerScale on export as in images_align_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import b16
    from ._base_.images_align import *

model.merge(b16)
image_size = model.image_size
