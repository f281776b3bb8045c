"""Linear depth heads on all six layers of PE-Mini-Spatial, on a CPU in minutes.

    tools/train.py configs/shapes_depth_sweep_pe_tiny.py

The run writes a table and a plot of RMSE by layer to the log folder.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.depth_sweep import *
    from ._base_.shapes_depth import *

model.merge(dict(decode_head=dict(type="pe_dense.LinearDepthHead")))
model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = dict(type="pe_dense.LayerMetric", metric=val_evaluator, key="rmse", higher_is_better=False)
test_evaluator = val_evaluator
custom_hooks = [dict(sweep_hook, title="Shapes, linear depth")]
