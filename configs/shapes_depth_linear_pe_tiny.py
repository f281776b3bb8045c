"""Depth of generated shapes: a linear head on the tower that `make demo` trains, on a CPU in minutes.

tools/train.py configs/shapes_depth_linear_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from .shapes_depth_pe_tiny import *

model.merge(
    dict(decode_head=dict(_delete_=True, type="pe_dense.LinearDepthHead", min_depth=min_depth, max_depth=max_depth))
)
