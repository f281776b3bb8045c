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

picture_images = "data/pictures"  # a few photos, to look at their features during training
custom_hooks = [
    dict(type="pe_dense.FiniteLossHook"),
    dict(type="pe_dense.SkippedImagesHook"),
    dict(type="pe_dense.FeaturePictureHook", images=picture_images, interval=200 * accumulative_counts),
]
