"""EoMT on PE Spatial B for panoptic COCO.

    tools/train.py configs/coco_panoptic_eomt_pe_b16.py --launcher pytorch

Recipe: EoMT's with DINOv2-B: twice as long as that of L; none is published for PE.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_panoptic_mask_transformer import *
    from ._base_.mask_transformers import COCO_EOMT, eomt_model, eomt_schedule

tower, num_blocks = "PE-Spatial-B16-512", 3
model.merge(eomt_model(tower, image_size, num_blocks, num_queries, panoptic_head=mask_classes))
optim_wrapper, param_scheduler, annealing, train_cfg = eomt_schedule(*(2 * n for n in COCO_EOMT), num_blocks)
custom_hooks.append(annealing)
del eomt_model, eomt_schedule
