"""DINOv2's recipe for depth on NYU depth v2 with its DPT head: 38,400 steps of 16 images on 8 GPUs.

Source: DINOv2 (arXiv 2304.07193, section 7.4) and its depth evaluation. With another number of GPUs, set
train_dataloader.batch_size so that 16 images take part in a step; the loss is computed over those of a GPU.
"""

from mmengine.config import read_base

with read_base():
    from .depth_training import *
    from .nyu import *
    from .probe import *
    from .runtime import *

model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(seg_pad_val=0),
        decode_head=dict(type="pe_dense.DINOv2DepthHead", min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole", flip=True),
    )
)
train_pipeline = depth_pipeline(load_without_border, border_crop_size)
train_dataloader.merge(dict(batch_size=images_per_step // 8, dataset=dict(pipeline=train_pipeline)))

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=clip_grad,
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=max_iters // 3 + 1),
    dict(type="CosineAnnealingLR", eta_min_ratio=1e-8, by_epoch=False, begin=0, end=max_iters),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
default_hooks.merge(dict(checkpoint=dict(interval=epoch, max_keep_ckpts=1, save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
del depth_pipeline
