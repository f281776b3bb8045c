"""First of three stages of shapes_clip_pe_tiny.py: one shape fills each crop, and captions name its form only.

tools/train.py configs/shapes_clip_forms_pe_tiny.py

With colors, sizes and places in the captions from the start, a tower of this size learns these first and no form: they
suffice to tell most pairs of a batch apart. From whole scenes it learns no form for a long time, either.
"""

from mmengine.config import read_base

with read_base():
    from .shapes_clip_pe_tiny import *

max_iters = 1000
weights_source = None
model.merge(dict(backbone=dict(arch=dict(image_size=64)), init_cfg=None))
train_dataloader.merge(dict(dataset=dict(told=form_captions, focus=1.0, context=1.6, pipeline=small_images)))
val_dataloader.merge(dict(dataset=dict(pipeline=small_images)))
test_dataloader = val_dataloader
optim_wrapper.merge(dict(optimizer=dict(lr=1e-3)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-4),
]
train_cfg.merge(dict(max_iters=max_iters, val_interval=250))
default_hooks.merge(dict(checkpoint=dict(interval=250)))
