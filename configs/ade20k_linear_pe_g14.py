"""Linear probe of PE Spatial G on ADE20k: published mIoU 49.3 at its best layer, the 49th of 50.

    tools/train.py configs/ade20k_linear_pe_g14.py

Another tower, other layers (numbered from 0), several of them together: --cfg-options tower=PE-Core-G14-448
model.backbone.out_indices=[43] (the paper's best of Core G) or model.backbone.out_indices=[12,24,36,48].
A probe of a sweep: tools/test.py configs/ade20k_linear_pe_g14.py work_dirs/ade20k_sweep_pe/best_probe.pth

Source: Perception Encoder, appendix B.3.3, in the schedule of DINOv2's linear probe.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_linear import *

model.merge(dict(backbone=dict(out_indices=(48,))))
