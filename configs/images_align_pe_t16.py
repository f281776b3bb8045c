"""Spatial alignment of PE Core T by the recipe of G. Published Spatial T was distilled: images_distill_pe_t16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/images_align_pe_t16.py --launcher pytorch

Fold LayerScale on export as in images_align_pe_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import t16
    from ._base_.images_align import *

model.merge(t16)
image_size = model.image_size
