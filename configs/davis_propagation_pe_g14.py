"""Label propagation with PE Spatial G on DAVIS 2017: published J&F 61.5. It needs no training.

    tools/test.py configs/davis_propagation_pe_g14.py

The Core tower: --cfg-options tower=PE-Core-G14-448; or PE-Lang-G14-448
Core's published best, 56.8, is block 31's: model.backbone.out_indices=[31].

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *
