"""PMT on a frozen PE Spatial L for panoptic COCO.

    tools/train.py configs/coco_panoptic_pmt_pe_l14.py --launcher pytorch

Recipe: PMT's for COCO, none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_panoptic_mask_transformer import *

tower = "PE-Spatial-L14-448"
model.merge(
    dict(
        backbone=mask_tower(tower, image_size, frozen=True),
        panoptic_head=dict(
            type="pe_dense.PMTHead",
            **mask_classes,
            num_queries=num_queries,
            num_heads=16,
            interaction_indices=L_TAPS,
        ),
    )
)
optim_wrapper, param_scheduler, annealing, train_cfg = pmt_schedule(*COCO_PMT)
custom_hooks.append(annealing)
del adamw, annealing_hook, eomt_schedule, mask_tower, pmt_schedule, train_loop
