"""Label propagation with PE Spatial B on DAVIS 2017: published J&F 58.9. It needs no training.

    tools/test.py configs/davis_propagation_pe_b16.py

The Core tower: --cfg-options tower=PE-Core-B16-224

Source: Perception Encoder, appendix B.3.3; DINO's protocol.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *

tower = "PE-Spatial-B16-512"
model.merge(dict(backbone=dict(arch=tower, init_cfg=dict(checkpoint=f"hf://facebook/{tower}"))))
test_dataloader.dataset.pipeline = [dict(type="pe_dense.LoadVideo", **sizes_by_patch.patch16)]
