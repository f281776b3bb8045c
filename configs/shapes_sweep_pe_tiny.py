"""Linear probes on all six layers of PE-Mini-Spatial, on a CPU in minutes.

    tools/train.py configs/shapes_sweep_pe_tiny.py

The run writes a table and a plot of mIoU by layer to the log folder, and the best probe for shapes_linear_pe_tiny.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.segmentation_sweep import *
    from ._base_.shapes_segmentation import *

model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = sweep_evaluator
test_evaluator = sweep_evaluator
custom_hooks = [*custom_hooks, dict(type="pe_dense.SweepHook", title="Shapes, linear probe", unit="%")]
