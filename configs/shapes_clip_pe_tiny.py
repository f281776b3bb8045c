"""Both towers of a tiny PE Core, on generated scenes with captions, on a CPU: last of three stages, at 128 px.

tools/train.py configs/shapes_clip_forms_pe_tiny.py
tools/train.py configs/shapes_clip_crops_pe_tiny.py
tools/train.py configs/shapes_clip_pe_tiny.py

Captions also name colors, sizes, places and relations. The weights that come with the package, PE-Mini-Core, are the
result of these stages.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.runtime import *
    from ._base_.shapes_captions import *

max_iters = 700
weights_source = "the second stage, configs/shapes_clip_crops_pe_tiny.py, trains them"

model = dict(
    type="pe_dense.ContrastiveCLIP",
    backbone=dict(type="pe_dense.PETower", arch=dict(base="PE-Mini-Core"), with_cp=False),
    text="PE-Mini-Core",
    loss="softmax",
    init_cfg=dict(type="Pretrained", checkpoint="work_dirs/shapes_clip_crops_pe_tiny"),
)

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=6e-4, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=100)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=100)))
