r"""Which block of PE Spatial B tracks best on DAVIS 2017: all 12 from one pass of the tower over each frame.

    tools/test.py configs/davis_sweep_pe_b16.py

The Core tower instead:

    tools/test.py configs/davis_sweep_pe_b16.py \
        hf://facebook/PE-Core-B16-224 --cfg-options model.backbone.arch=PE-Core-B16-224

Table and plot by layer lie in the test's log folder.
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_b16 import *

model.merge(dict(backbone=dict(out_indices=tuple(range(12)))))
