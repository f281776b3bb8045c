"""Which block of the demo's tower tracks moving shapes best: all four from one pass over each frame.

    tools/test.py configs/shapes_propagation_sweep_pe_tiny.py

A table and a plot of J&F by layer lie in the log folder.
"""

from mmengine.config import read_base

with read_base():
    from .shapes_propagation_pe_tiny import *

model.merge(dict(backbone=dict(out_indices=None)))
