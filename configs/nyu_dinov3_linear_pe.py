"""Linear depth probe on NYU depth v2 in the form of DINOv3's and EUPE's papers: published RMSE 0.362 m, PE Spatial G.

    tools/train.py configs/nyu_dinov3_linear_pe.py --cfg-options tower=PE-Spatial-B16-512

`tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`), PE-Spatial-G14-448 by default.
Published: PE Spatial G 0.362, B 0.389, S 0.464, T 0.589; PE Core G 0.590, L 0.650, B 0.641, S 0.599, T 0.756 (DINOv3,
table 3; EUPE, table 1, with a weight decay of 1e-3). On N GPUs set train_dataloader.batch_size to 16 / N.

Source: DINOv3 (arXiv 2508.10104) and its code, eval/depth/configs/config-nyu.yaml. For patches of 14 px, images are
padded on the right and at the bottom, not on all sides, so that depths stay in place.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.dinov3_depth import *
    from ._base_.nyu import *

model.merge(dict(decode_head=dict(min_depth=min_depth, max_depth=max_depth)))
train_pipeline = depth_pipeline(load_without_border, border_crop_size, unit=1.0)  # gamma on values in 0..255
train_dataloader.merge(dict(dataset=dict(pipeline=train_pipeline)))
del depth_pipeline
