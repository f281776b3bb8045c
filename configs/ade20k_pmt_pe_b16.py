"""PMT on a frozen PE Spatial B for ADE20k.

    tools/train.py configs/ade20k_pmt_pe_b16.py --launcher pytorch

Recipe: PMT's for ADE20k, none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_mask_transformer import *
    from ._base_.mask_transformers import ADE20K_PMT, pmt_model, pmt_schedule

tower = "PE-Spatial-B16-512"
model.merge(pmt_model(tower, image_size, num_queries, decode_head=mask_classes))
optim_wrapper, param_scheduler, annealing, train_cfg = pmt_schedule(*ADE20K_PMT)
custom_hooks.append(annealing)
del pmt_model, pmt_schedule
