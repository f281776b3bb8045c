"""Linear probe on ADE20k in the form of DINOv3's and EUPE's papers: published mIoU 49.3 for PE Spatial G.

    tools/train.py configs/ade20k_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

`tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`), PE-Spatial-G14-448 by default. It
sets the size of images so that they have 1,024 patches. Published: PE Spatial G 49.3, B 45.5, S 38.6, T 28.5; PE Core G
38.9, B 37.4, S 33.7, T 22.0 (DINOv3, table 3; EUPE, table 1).

Source: DINOv3 (arXiv 2508.10104) and its code, eval/segmentation. Differences from the Perception Encoder's probe: the
last layer after the final norm, dropout of 0.1, a cosine, weight decay 1e-3.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_linear import *
    from ._base_.dinov3_probe import *

model.merge(dinov3_model)
optim_wrapper.merge(dinov3_optim_wrapper)
param_scheduler = [dict(dinov3_scheduler, end=max_iters)]
train_cfg.merge(dinov3_train_cfg)
