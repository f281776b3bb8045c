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
    from ._base_.dinov2_depth import *
    from ._base_.nyu import *
    from ._base_.probe import *

model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(seg_pad_val=0),
        backbone=dict(out_indices=(45,)),
        decode_head=dict(type="pe_dense.DINOv2DepthHead", min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole", flip=True),
    )
)
train_dataloader.merge(dict(batch_size=2, dataset=dict(pipeline=dinov2_pipeline)))
default_hooks.merge(dict(checkpoint=dict(interval=epoch, max_keep_ckpts=1, save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
