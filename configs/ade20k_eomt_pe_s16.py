"""EoMT on PE Spatial S for ADE20k.

    tools/train.py configs/ade20k_eomt_pe_s16.py --launcher pytorch

Recipe: not published for this size: EoMT's for ADE20k with DINOv2-L, with the 3 blocks of its S and B models.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_mask_transformer import *

tower, num_blocks = "PE-Spatial-S16-512", 3
model.merge(
    dict(
        backbone=mask_tower(tower, image_size),
        decode_head=dict(type="pe_dense.EoMTHead", **mask_classes, num_queries=num_queries, num_blocks=num_blocks),
    )
)
optim_wrapper, param_scheduler, annealing, train_cfg = eomt_schedule(*ADE20K_EOMT, num_blocks)
custom_hooks.append(annealing)
del adamw, annealing_hook, eomt_schedule, mask_tower, pmt_schedule, train_loop
