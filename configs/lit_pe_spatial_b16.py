"""Text embeddings for the patches of PE Spatial B: locked-image tuning on captions of your own.

torchrun --nproc_per_node=8 tools/train.py configs/lit_pe_spatial_b16.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.lit import *

model.merge(towers("B16", 512, "PE-Core-B16-224"))
del towers
