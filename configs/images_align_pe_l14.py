"""PE Core L aligned as G is. The published Spatial L was distilled from G: images_distill_pe_l14.py.

    torchrun --nproc_per_node=8 tools/train.py configs/images_align_pe_l14.py --launcher pytorch

LayerScale, which the published Spatial towers of this size lack, folds away:

    tools/export_tower.py work_dirs/images_align_pe_l14 OUT.pt --fold-layer-scale
"""

from mmengine.config import read_base

with read_base():
    from ._base_.align_towers import l14
    from ._base_.images_align import *

model.merge(l14)
