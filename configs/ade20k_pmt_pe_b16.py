"""PMT on a frozen PE Spatial B for ADE20k.

    tools/train.py configs/ade20k_pmt_pe_b16.py --launcher pytorch

Recipe: PMT's for ADE20k, none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_mask_transformer import *

tower = "PE-Spatial-B16-512"
model.merge(
    dict(
        backbone=mask_tower(tower, image_size, frozen=True),
        decode_head=dict(
            type="pe_dense.PMTHead",
            **mask_classes,
            num_queries=num_queries,
            num_heads=12,
            interaction_indices=B_TAPS,
        ),
    )
)
optim_wrapper, param_scheduler, annealing, train_cfg = pmt_schedule(*ADE20K_PMT)
custom_hooks.append(annealing)
del adamw, annealing_hook, eomt_schedule, mask_tower, pmt_schedule, train_loop
