"""PE Core T aligned as G is. The published Spatial T was distilled from G: distill_pe_spatial_t16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_t16.py --launcher pytorch

LayerScale, which the published Spatial towers of this size lack, folds away:

    tools/export_tower.py work_dirs/align_pe_spatial_t16 OUT.pt --fold-layer-scale
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align import *
    from ._base_.align_runtime import *
    from ._base_.align_schedule import *
    from ._base_.image_folder import *

image_size = 512

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch=dict(base="PE-Spatial-T16-512", ls_init_value=0.1)),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-T16-384"),
        core=dict(tower=dict(arch="PE-Core-T16-384"), layer=12 * 40 // 50),  # as deep as G's 40 of 50
    )
)
