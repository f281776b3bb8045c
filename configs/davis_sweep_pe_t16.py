"""Which of the 12 blocks of PE Spatial T tracks best on DAVIS 2017, from one pass of the tower over each frame?

    tools/test.py configs/davis_sweep_pe_t16.py

leaves a table and a plot of J&F by layer in the log folder. Other towers as in davis_propagation_pe_t16.py.
Some layers only: --cfg-options model.backbone.out_indices=[3,7,11]
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_t16 import *

model.merge(dict(backbone=dict(out_indices=None)))
