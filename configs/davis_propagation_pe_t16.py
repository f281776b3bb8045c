"""Label propagation with PE Spatial T on DAVIS 2017: published J&F 55.0. It needs no training.

    tools/test.py configs/davis_propagation_pe_t16.py

The Core tower: --cfg-options tower=PE-Core-T16-384

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *

tower = "PE-Spatial-T16-512"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
test_dataloader.dataset.pipeline = [dict(type="pe_dense.LoadVideo", **sizes_by_patch.patch16)]
