"""Mask R-CNN on a frozen PE Spatial G, COCO, 15 epochs, to evaluate the features themselves.

    tools/train.py configs/coco_maskrcnn_pe_frozen_g14.py --launcher pytorch

Another tower or block: --cfg-options model.backbone.arch=PE-Core-G14-448 model.backbone.out_indices=[40]
model.backbone.init_cfg.checkpoint=hf://facebook/PE-Core-G14-448

Source: Perception Encoder, appendix B.3.3: windows of 32, tiled positions, no global block.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.coco_maskrcnn import *
    from ._base_.detection_schedule_15ep import *
    from ._base_.detection_towers import frozen

model.merge(frozen)
