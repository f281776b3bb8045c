"""EoMT on PE-Mini for the classes of generated shapes, on a CPU in minutes.

tools/train.py configs/shapes_eomt_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.mask_transformers import annealing_hook, semantic_model
    from ._base_.mini_tower import *
    from ._base_.shapes_segmentation import *

max_iters = 1200
model = semantic_model(image_size)
model.update(
    backbone=mini_tower,
    decode_head=dict(
        type="pe_dense.EoMTHead",
        num_things_classes=0,
        num_stuff_classes=num_classes,
        num_queries=20,
        num_blocks=2,
        num_points=1024,
    ),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    constructor="pe_dense.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.5),  # the layers of so few blocks are far apart
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 2)
custom_hooks.append(annealing_hook([(max_iters // 6, max_iters // 2), (max_iters // 2, max_iters * 5 // 6)]))
default_hooks.merge(dict(checkpoint=dict(interval=max_iters // 2)))
del annealing_hook, pixel_shares, semantic_model, tower
