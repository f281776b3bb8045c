"""Depth on NYUv2: DINOv2's DPT head on one layer of PE Spatial G; published RMSE 0.262 at its 46th layer of 50.

    tools/train.py configs/nyu_dpt_pe_g14.py --launcher pytorch    # on 8 GPUs, 2 images each

The best checkpoint is kept as best_rmse_iter_<n>.pth. Another tower, other layers (numbered from 0): --cfg-options
tower=PE-Core-G14-448 model.backbone.out_indices=[38] (the paper's best of Core G), or four layers, one for each stage
of the head: model.backbone.out_indices=[11,23,35,47]. mmseg's DPT head and loss:
model.decode_head.type=pe_dense.DPTDepthHead

Source: Perception Encoder, appendix B.3.3, which states a DPT head and 20 epochs, but neither head nor loss in detail.
Head, loss, schedule (38,400 steps) and augmentation are those of DINOv2's depth evaluation.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.nyu_dpt import *

model.merge(dict(backbone=dict(out_indices=(45,))))
