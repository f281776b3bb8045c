"""Depth on NYUv2: a linear head on one layer of PE Spatial G.

    tools/train.py configs/nyu_linear_pe_g14.py

The best epoch is kept as best_rmse_iter_<n>.pth. Another tower or layer: options as in nyu_dpt_pe_g14.py. A probe of a
sweep: tools/test.py configs/nyu_linear_pe_g14.py work_dirs/nyu_sweep_pe_g14/best_probe.pth

Source: DINOv2's linear depth head, with mmseg's SILog loss and 20 epochs. No figure is published for this recipe.
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
        decode_head=dict(type="pe_dense.LinearDepthHead", min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole"),
    )
)
optim_wrapper.merge(dict(optimizer=dict(lr=1e-3)))
default_hooks.merge(dict(checkpoint=dict(interval=epoch, max_keep_ckpts=1, save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
