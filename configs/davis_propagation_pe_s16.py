r"""Label propagation with PE Spatial S on DAVIS 2017: published J&F 57.5. Nothing is trained.

    tools/test.py configs/davis_propagation_pe_s16.py

The Core tower instead:

    tools/test.py configs/davis_propagation_pe_s16.py \
        hf://facebook/PE-Core-S16-384 --cfg-options model.backbone.arch=PE-Core-S16-384

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_b16 import *

model.merge(
    dict(backbone=dict(arch="PE-Spatial-S16-512", init_cfg=dict(checkpoint="hf://facebook/PE-Spatial-S16-512")))
)
