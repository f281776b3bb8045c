"""Linear depth probe of PE Spatial G in DINOv3's form, without data.

A config sets the range of depths by `set_range` and deletes the function.

Source: DINOv3 (arXiv 2508.10104) and its code, eval/depth: config-nyu.yaml, train.py, schedulers.py.
"""

from mmengine.config import read_base

with read_base():
    from .depth_training import *
    from .dinov3_probe import *
    from .probe import *
    from .runtime import *

model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(seg_pad_val=0),
        backbone=dinov3_model["backbone"],
        # Losses over two images, the share of each of 8 GPUs, so that other numbers of GPUs train alike.
        decode_head=dict(
            type="pe_dense.LinearDepthHead", upsampling=1, loss=dict(type="pe_dense.SigLoss", group_size=2)
        ),
        test_cfg=dict(mode="whole", flip=True),
    )
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.99), weight_decay=1e-4),
    clip_grad=clip_grad,
)
_schedule = dict(warmup=max_iters // 3, by_epoch=False, end=max_iters)
param_scheduler = [
    dict(type="pe_dense.DINOv3DepthLR", **_schedule),
    dict(type="pe_dense.DINOv3DepthMomentum", **_schedule),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=1600)
default_hooks.merge(dict(checkpoint=dict(interval=1600, max_keep_ckpts=1)))
inferencer = dict(type="pe_dense.DepthPredictor")
del dinov3_model, dinov3_optim_wrapper, dinov3_scheduler, dinov3_train_cfg
