"""PE Spatial T, distilled from PE Spatial G; starts from PE Core T.

torchrun --nproc_per_node=8 tools/train.py configs/images_distill_pe_t16.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.images_distill import *

image_size = 512  # with patches of 16 px, the grid of the teacher

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch="PE-Spatial-T16-512"),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-T16-384"),
    )
)
