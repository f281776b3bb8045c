"""Depth on NYUv2: a linear head on one layer of PE Spatial G.

    tools/train.py configs/nyu_linear_pe_g14.py

The best epoch is kept as best_rmse_iter_<n>.pth. Another tower or layer: options as in nyu_dpt_pe_g14.py. A probe of a
sweep: tools/test.py configs/nyu_linear_pe_g14.py work_dirs/nyu_sweep_pe/best_probe.pth

Source: DINOv2's linear depth head, with mmseg's SILog loss and 20 epochs. No figure is published for this recipe.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.nyu_linear import *

model.merge(dict(backbone=dict(out_indices=(45,))))
