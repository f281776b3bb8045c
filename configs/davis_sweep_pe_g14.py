"""Which of the 50 blocks of PE Spatial G tracks best on DAVIS 2017, from one pass of the tower over each frame?

    tools/test.py configs/davis_sweep_pe_g14.py

leaves a table and a plot of J&F by layer in the log folder. Other towers as in davis_propagation_pe_g14.py.
Some layers only: --cfg-options model.backbone.out_indices=[3,7,11]
"""

from mmengine.config import read_base

with read_base():
    from .davis_propagation_pe_g14 import *

model.merge(dict(backbone=dict(out_indices=None)))
