"""Layer sweep: label propagation on moving shapes for all six blocks of PE-Mini-Spatial.

    tools/test.py configs/shapes_propagation_sweep_pe_tiny.py

The run writes a table and a plot of J&F by layer to the log folder.
"""

from mmengine.config import read_base

with read_base():
    from .shapes_propagation_pe_tiny import *

model.merge(dict(backbone=dict(out_indices=None)))
