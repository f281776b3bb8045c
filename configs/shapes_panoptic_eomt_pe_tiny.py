"""EoMT with a tiny PE tower on generated shapes and their background: learns from nothing on a CPU in minutes.

tools/train.py configs/shapes_panoptic_eomt_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.mask_transformers import annealing_hook, object_model
    from ._base_.shapes_panoptic import *
    from ._base_.shapes_schedule import *
    from ._base_.tiny_tower import *

model = object_model(image_size, panoptic_on=True, instance_on=True, max_per_image=20, object_mask_thr=0.5, iou_thr=0.5)
model.update(
    backbone=dict(tiny_tower, window_size=None, global_blocks=(), rope_reference_grid=None),
    panoptic_head=dict(
        type="pe_dense.EoMTHead",
        num_things_classes=num_things,
        num_stuff_classes=num_stuff,
        num_queries=20,
        num_blocks=2,
        num_points=1024,
    ),
)
custom_hooks.append(annealing_hook([(max_iters // 6, max_iters // 2), (max_iters // 2, max_iters * 5 // 6)]))
default_hooks.merge(dict(checkpoint=dict(interval=400)))
del annealing_hook, object_model
