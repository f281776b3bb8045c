"""EoMT on PE Spatial L for panoptic COCO.

    tools/train.py configs/coco_panoptic_eomt_pe_l14.py --launcher pytorch

Recipe: EoMT's with DINOv2-L, none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_panoptic_mask_transformer import *

tower, num_blocks = "PE-Spatial-L14-448", 4
model.merge(
    dict(
        backbone=mask_tower(tower, image_size),
        panoptic_head=dict(type="pe_dense.EoMTHead", **mask_classes, num_queries=num_queries, num_blocks=num_blocks),
    )
)
optim_wrapper, param_scheduler, annealing, train_cfg = eomt_schedule(*COCO_EOMT, num_blocks)
custom_hooks.append(annealing)
del adamw, annealing_hook, eomt_schedule, mask_tower, pmt_schedule, train_loop
