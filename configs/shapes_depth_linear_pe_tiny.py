"""Depth of generated shapes: a linear head on PE-Mini-Spatial, on a CPU in a minute.

tools/train.py configs/shapes_depth_linear_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes_depth import *

model.merge(dict(decode_head=dict(type="pe_dense.LinearDepthHead")))
