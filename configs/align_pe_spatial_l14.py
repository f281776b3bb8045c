"""PE Core L aligned as G is. The published Spatial L was distilled from G: distill_pe_spatial_l14.py.

    torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_l14.py --launcher pytorch

LayerScale, which the published Spatial towers of this size lack, folds away:

    tools/export_tower.py work_dirs/align_pe_spatial_l14 OUT.pt --fold-layer-scale
"""

from mmengine.config import read_base

with read_base():
    from .align_pe_spatial_g14 import *

model.merge(
    dict(
        backbone=dict(arch=dict(base="PE-Spatial-L14-448", ls_init_value=0.1)),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-L14-336"),
        core=dict(tower=dict(arch="PE-Core-L14-336"), layer=24 * 40 // 50),  # as deep as G's 40 of 50
    )
)
