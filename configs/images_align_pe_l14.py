"""Spatial alignment of PE Core L by the recipe of G. Published Spatial L was distilled: images_distill_pe_l14.py.

    torchrun --nproc_per_node=8 tools/train.py configs/images_align_pe_l14.py --launcher pytorch

The published Spatial towers of this size have no LayerScale; to fold it into the weights:

    tools/export_tower.py work_dirs/images_align_pe_l14 OUT.pt --fold-layer-scale
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import l14
    from ._base_.images_align import *

model.merge(l14)
