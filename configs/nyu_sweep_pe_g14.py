"""Linear depth heads on all 50 layers of PE Spatial G at once on NYUv2: which one is best?

    tools/train.py configs/nyu_sweep_pe_g14.py

leaves a table and a plot of RMSE by layer in the log folder, and the best probe for nyu_linear_pe_g14.py.
Some layers only, a grid of rates at once: --cfg-options model.backbone.out_indices=[3,7,11]
model.learning_rates=[1e-3,1e-2] model.weight_decays=[0.0,1e-4]
"""

from mmengine.config import read_base

with read_base():
    from ._base_.depth_sweep import *
    from .nyu_linear_pe_g14 import *

model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = dict(type="pe_dense.LayerMetric", metric=val_evaluator, key="rmse", higher_is_better=False)
test_evaluator = val_evaluator
custom_hooks = [sweep_hook]
