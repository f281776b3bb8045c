"""Depth on NYUv2: a linear head on one layer of PE Spatial G.

    tools/train.py configs/nyu_linear_pe_g14.py

Options as in nyu_dpt_pe_g14.py. A probe of a sweep:
tools/test.py configs/nyu_linear_pe_g14.py work_dirs/nyu_sweep_pe_g14/best_probe.pth

Source: DINOv2's linear depth head, in the schedule of the DPT config.
"""

from mmengine.config import read_base

with read_base():
    from .nyu_dpt_pe_g14 import *

model.merge(dict(decode_head=dict(type="pe_dense.LinearDepthHead")))
optim_wrapper.merge(dict(optimizer=dict(lr=1e-3)))
