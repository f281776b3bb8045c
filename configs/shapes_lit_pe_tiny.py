"""Text embeddings for the patches of PE-Mini-Spatial, which is frozen, on captions of generated scenes, on a CPU.

tools/train.py configs/shapes_lit_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.mini_lit import *
    from ._base_.runtime import *
    from ._base_.shapes_captions import *

max_iters = 400

model = dict(mini_lit, init_cfg=dict(type="Pretrained", checkpoint="pe-mini://core"))
train_dataloader.merge(dict(batch_size=64))

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=200)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=200)))
