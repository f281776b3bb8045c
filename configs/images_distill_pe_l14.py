"""PE Spatial L, distilled from PE Spatial G; starts from PE Core L.

torchrun --nproc_per_node=8 tools/train.py configs/images_distill_pe_l14.py --launcher pytorch
"""

from mmengine.config import read_base

with read_base():
    from ._base_.images_distill import *

image_size = 448

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch="PE-Spatial-L14-448"),
        init_cfg=dict(checkpoint="hf://facebook/PE-Core-L14-336"),
    )
)
