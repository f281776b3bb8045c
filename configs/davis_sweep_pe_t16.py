r"""Which block of PE Spatial T tracks best on DAVIS 2017: all 12 from one pass of the tower over each frame.

    tools/test.py configs/davis_sweep_pe_t16.py

The Core tower instead:

    tools/test.py configs/davis_sweep_pe_t16.py \
        hf://facebook/PE-Core-T16-384 --cfg-options model.backbone.arch=PE-Core-T16-384

Table and plot by layer lie in the test's log folder.
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_t16 import *

model.merge(dict(backbone=dict(out_indices=tuple(range(12)))))
