"""Label propagation on DAVIS 2017 in DINOv3's protocol, short side 420 px (patch 14) or 480 px (patch 16).

    tools/test.py configs/davis_dinov3_propagation_pe.py --cfg-options tower=PE-Spatial-B16-512

`tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`), PE-Spatial-G14-448 by default
(published J&F 68.4). The larger sizes M and L: test_dataloader.dataset.pipeline.0.short_side=840 or 1260 (patch 16: 960
or 1440); published for Spatial G 74.5 and 70.5.

Source: DINOv3 (arXiv 2508.10104), table 5, and its notebook on segmentation tracking. Differences from DINO's protocol:
the final norm, a circular neighborhood, temperature 0.2, and nearest-neighbor upsampling.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis_propagation import *
    from ._base_.dinov3_propagation import *

sizes_by_patch = dinov3_sizes
model.merge(dinov3_propagation)
test_dataloader.dataset.pipeline = dinov3_pipeline
