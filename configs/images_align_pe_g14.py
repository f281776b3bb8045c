"""PE Spatial G from PE Core G, by the published recipe.

torchrun --nproc_per_node=8 tools/train.py configs/images_align_pe_g14.py --launcher pytorch --fsdp
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import g14
    from ._base_.images_align import *

model.merge(g14)
