"""Depth on NYUv2: a DPT head on one layer of PE Spatial G; published RMSE 0.262 at its best layer, the 46th of 50.

    tools/train.py configs/nyu_dpt_pe_g14.py

The best epoch is kept as best_rmse_iter_<n>.pth. Another tower, other layers (numbered from 0): --cfg-options
tower=PE-Core-G14-448 model.backbone.out_indices=[38] (the paper's best of Core G), or four layers, one for each stage
of the head: model.backbone.out_indices=[11,23,35,47]

Source: Perception Encoder, appendix B.3.3: 20 epochs; rate, batch and crop are not published.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.depth_schedule import *
    from ._base_.nyu import *
    from ._base_.probe import *

model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(size=crop_size, seg_pad_val=0),
        backbone=dict(out_indices=(45,)),
        decode_head=dict(type="pe_dense.DPTDepthHead", min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole"),
    )
)
default_hooks.merge(dict(checkpoint=dict(interval=epoch, max_keep_ckpts=1, save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
