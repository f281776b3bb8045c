"""EoMT on PE Spatial S for ADE20k.

    tools/train.py configs/ade20k_eomt_pe_s16.py --launcher pytorch

Recipe: not published for this size: EoMT's for ADE20k with DINOv2-L, with the 3 blocks of its S and B models.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_mask_transformer import *
    from ._base_.mask_transformers import ADE20K_EOMT, eomt_model, eomt_schedule

tower, num_blocks = "PE-Spatial-S16-512", 3
model.merge(eomt_model(tower, image_size, num_blocks, num_queries, decode_head=mask_classes))
optim_wrapper, param_scheduler, annealing, train_cfg = eomt_schedule(*ADE20K_EOMT, num_blocks)
custom_hooks.append(annealing)
del eomt_model, eomt_schedule
