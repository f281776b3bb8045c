"""Label propagation with PE Spatial G on DAVIS 2017."""

from mmengine.config import read_base

with read_base():
    from .davis import *
    from .label_propagation import *
    from .runtime import *

default_hooks.merge(dict(logger=dict(interval=1)))
test_dataloader.dataset.pipeline = [dict(type="pe_dense.LoadVideo", **sizes_by_patch.patch14)]
