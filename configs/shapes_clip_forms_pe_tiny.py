"""First stage of shapes_clip_pe_tiny.py: large single forms with captions that name nothing else, on a CPU.

tools/train.py configs/shapes_clip_forms_pe_tiny.py

With colors, sizes and places in the captions from the start, a tower of this size learns these first and no form in
1,500 steps of 64 pairs: they suffice to tell most pairs of a batch apart.
"""

from mmengine.config import read_base

with read_base():
    from .shapes_clip_pe_tiny import *

max_iters = 800
load_from = None
train_dataloader.dataset.merge(dict(focus=1.0, context=1.8, told=dict(size=0.0, color=0.0, place=0.0, relation=0.0)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=7e-4),
]
train_cfg.merge(dict(max_iters=max_iters, val_interval=200))
default_hooks.merge(dict(checkpoint=dict(interval=200)))
