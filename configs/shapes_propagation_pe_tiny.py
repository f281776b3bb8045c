"""Label propagation on moving shapes with PE-Mini-Spatial, on a CPU in minutes. It needs no training.

    tools/test.py configs/shapes_propagation_pe_tiny.py

The videos are made in `data_root` on first use; another checkpoint with such a tower may be named after the config.
All shapes of a video have the same colors and texture, so that only their forms and places tell them apart.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.davis import *
    from ._base_.label_propagation import *
    from ._base_.mini_tower import *
    from ._base_.runtime import *

data_root = "data/shapes_video_same_surface"
del sizes_by_patch  # of PE's patches

model.merge(dict(backbone=dict(mini_tower, with_head=None)))
test_dataloader.merge(
    dict(
        num_workers=1,
        dataset=dict(
            type="pe_dense.ShapesVideoDataset",
            data_root=data_root,
            generator=dict(num_videos=12, num_frames=24, same_surface=True),
            pipeline=[dict(type="pe_dense.LoadVideo", short_side=128, divisor=8)],
        ),
    )
)
custom_hooks = [dict(type="pe_dense.VideoResultsHook", fps=8)]
default_hooks.merge(dict(logger=dict(interval=1)))
