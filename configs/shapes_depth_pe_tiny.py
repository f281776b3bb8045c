"""Depth of generated shapes: a small DPT head on PE-Mini-Spatial, on a CPU in minutes.

tools/train.py configs/shapes_depth_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.shapes_depth import *

model.merge(dict(decode_head=dict(type="pe_dense.DPTDepthHead", channels=32)))
