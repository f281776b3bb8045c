r"""Label propagation with PE Spatial L on DAVIS 2017: published J&F 60.6. Nothing is trained.

    tools/test.py configs/davis_propagation_pe_l14.py

The Core tower instead:

    tools/test.py configs/davis_propagation_pe_l14.py \
        hf://facebook/PE-Core-L14-336 --cfg-options model.backbone.arch=PE-Core-L14-336

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_g14 import *

model.merge(
    dict(backbone=dict(arch="PE-Spatial-L14-448", init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-L14-448")))
)
