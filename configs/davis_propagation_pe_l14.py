"""Label propagation with PE Spatial L on DAVIS 2017: published J&F 60.6. It needs no training.

    tools/test.py configs/davis_propagation_pe_l14.py

The Core tower: --cfg-options tower=PE-Core-L14-336; or PE-Lang-L14-448

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *

tower = "PE-Spatial-L14-448"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
