"""Layer sweep: label propagation on DAVIS 2017 for all layers of a tower.

    tools/test.py configs/davis_sweep_pe.py --cfg-options tower=PE-Spatial-B16-512

The run writes a table and a plot of J&F by layer to the log folder, from one pass of the tower over each frame.
`tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`), PE-Spatial-G14-448 by default; it
sets the sizes of images, too, and its name is part of that of the default work dir.
Some layers only: --cfg-options model.backbone.out_indices=[3,7,11]
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *

model.merge(dict(backbone=dict(out_indices=None)))
