"""PMT on a frozen PE Spatial L for panoptic COCO.

    tools/train.py configs/coco_panoptic_pmt_pe_l14.py --launcher pytorch

Recipe: PMT's for COCO, none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_panoptic_mask_transformer import *
    from ._base_.mask_transformers import COCO_PMT, pmt_model, pmt_schedule

tower = "PE-Spatial-L14-448"
model.merge(pmt_model(tower, image_size, num_queries, panoptic_head=mask_classes))
optim_wrapper, param_scheduler, annealing, train_cfg = pmt_schedule(*COCO_PMT)
custom_hooks.append(annealing)
del pmt_model, pmt_schedule
