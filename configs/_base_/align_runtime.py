"""How a run with teachers goes: hooks, logs, checkpoints."""

from mmengine.config import read_base

with read_base():
    from .align_schedule import accumulative_counts
    from .runtime import *

default_scope = "mmengine"
default_hooks.pop("visualization")
# A checkpoint between two updates would lose the gradients so far.
default_hooks.merge(dict(checkpoint=dict(interval=200 * accumulative_counts)))
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")

custom_hooks = [
    dict(type="pe_dense.SkippedImagesHook"),
    # A few photos, to look at their features during training.
    dict(type="pe_dense.FeaturePictureHook", images="data/pictures", interval=200 * accumulative_counts),
]
