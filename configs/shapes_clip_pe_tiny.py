"""Both towers of a tiny PE Core, on generated scenes with captions, on a CPU; starts from the first stage.

tools/train.py configs/shapes_clip_forms_pe_tiny.py
tools/train.py configs/shapes_clip_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.runtime import *
    from ._base_.shapes_captions import *
    from ._base_.tiny_clip import *

max_iters = 3000
load_from = "work_dirs/shapes_clip_forms_pe_tiny"

model = dict(
    type="pe_dense.ContrastiveCLIP",
    backbone=dict(type="pe_dense.PETower", arch=tiny_clip["vision"], with_cp=False),
    text=tiny_clip["text"],
    loss="softmax",
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=250)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=250)))
