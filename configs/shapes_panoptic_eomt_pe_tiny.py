"""EoMT on PE-Mini for generated shapes and their background, on a CPU in minutes.

tools/train.py configs/shapes_panoptic_eomt_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.mask_transformers import annealing_hook, object_model
    from ._base_.mini_tower import *
    from ._base_.shapes_panoptic import *
    from ._base_.shapes_schedule import *

model = object_model(image_size, panoptic_on=True, instance_on=True, max_per_image=20, object_mask_thr=0.5, iou_thr=0.5)
model.update(
    backbone=mini_tower,
    panoptic_head=dict(
        type="pe_dense.EoMTHead",
        num_things_classes=num_things,
        num_stuff_classes=num_stuff,
        num_queries=20,
        num_blocks=2,
        num_points=1024,
    ),
)
optim_wrapper.merge(
    dict(
        type="AmpOptimWrapper",
        dtype="bfloat16",
        optimizer=dict(lr=5e-4),
        constructor="pe_dense.LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(decay_rate=0.5),  # the layers of so few blocks are far apart
    )
)
custom_hooks.append(annealing_hook([(max_iters // 6, max_iters // 2), (max_iters // 2, max_iters * 5 // 6)]))
default_hooks.merge(dict(checkpoint=dict(interval=400)))
del annealing_hook, object_model
