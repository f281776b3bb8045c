"""Second of three stages of shapes_clip_pe_tiny.py: crops of all sizes at 64 px, with captions that name forms only.

tools/train.py configs/shapes_clip_forms_pe_tiny.py
tools/train.py configs/shapes_clip_crops_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from .shapes_clip_pe_tiny import *

max_iters = 1250
weights_source = "the first stage, configs/shapes_clip_forms_pe_tiny.py, trains them"
model.merge(
    dict(
        backbone=dict(arch=dict(image_size=64)),
        init_cfg=dict(checkpoint="work_dirs/shapes_clip_forms_pe_tiny"),
    )
)
train_dataloader.merge(dict(dataset=dict(told=form_captions, pipeline=small_images)))
val_dataloader.merge(dict(dataset=dict(pipeline=small_images)))
test_dataloader = val_dataloader
optim_wrapper.merge(dict(optimizer=dict(lr=1e-3)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    # Only half of the cosine: the last stage continues from there.
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=2 * max_iters, eta_min=1e-5),
]
train_cfg.merge(dict(max_iters=max_iters, val_interval=250))
default_hooks.merge(dict(checkpoint=dict(interval=250)))
