"""PE Spatial B, distilled from PE Spatial G; starts from PE Core B.

torchrun --nproc_per_node=8 tools/train.py configs/images_distill_pe_b16.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.images_distill import *

image_size = 512  # with patches of 16 px, the grid of the teacher

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch="PE-Spatial-B16-512"),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-B16-224"),
    )
)
