"""PE Core T aligned as G is. The published Spatial T was distilled from G: distill_pe_spatial_t16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_t16.py --launcher pytorch

LayerScale folds away as in align_pe_spatial_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from .align_pe_spatial_b16 import *

model.merge(
    dict(
        backbone=dict(arch=dict(base="PE-Spatial-T16-512")),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-T16-384"),
        core=dict(tower=dict(arch="PE-Core-T16-384")),
    )
)
