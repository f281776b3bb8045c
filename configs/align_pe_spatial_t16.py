"""PE Core T aligned as G is. The published Spatial T was distilled from G: distill_pe_spatial_t16.py.

    torchrun --nproc_per_node=8 tools/train.py configs/align_pe_spatial_t16.py --launcher pytorch

LayerScale folds away as in align_pe_spatial_l14.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import t16
    from ._base_.images_align import *

model.merge(t16)
image_size = model.image_size
