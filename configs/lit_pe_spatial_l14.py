"""Text embeddings for the patches of PE Spatial L: locked-image tuning on captions of your own.

torchrun --nproc_per_node=8 tools/train.py configs/lit_pe_spatial_l14.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.lit import *

model.merge(towers("L14", 448, "PE-Core-L14-336"))
del towers
