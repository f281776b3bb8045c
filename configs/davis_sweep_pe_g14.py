r"""Which block of PE Spatial G tracks best on DAVIS 2017: all 50 from one pass of the tower over each frame.

    tools/test.py configs/davis_sweep_pe_g14.py

The Core tower instead:

    tools/test.py configs/davis_sweep_pe_g14.py \
        hf://facebook/PE-Core-G14-448 --cfg-options model.backbone.arch=PE-Core-G14-448

Table and plot by layer lie in the test's log folder.
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_g14 import *

model.merge(dict(backbone=dict(out_indices=tuple(range(50)))))
