"""PE Core B aligned as G is. The published Spatial B was distilled from G: distill_pe_spatial_b16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_b16.py --launcher pytorch

LayerScale folds away as in align_pe_spatial_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from .align_pe_spatial_l14 import *

image_size = 512

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch=dict(base="PE-Spatial-B16-512")),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-B16-224"),
        core=dict(tower=dict(arch="PE-Core-B16-224"), layer=12 * 40 // 50),
    )
)
