"""Layer sweep: linear depth heads on NYUv2 for all layers of a tower.

    tools/train.py configs/nyu_sweep_pe.py --cfg-options tower=PE-Spatial-B16-512

The run writes a table and a plot of RMSE by layer to the log folder, and the best probe for the tower's
nyu_linear_pe_*.py. `tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`),
PE-Spatial-G14-448 by default; it sets the sizes of images, too, and its name is part of that of the default work dir.
Some layers only, a grid of rates at once: --cfg-options model.backbone.out_indices=[3,7,11]
model.learning_rates=[1e-3,1e-2] model.weight_decays=[0.0,1e-4]
"""

from mmengine.config import read_base

with read_base():
    from ._base_.depth_sweep import *
    from ._base_.nyu_linear import *

model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = dict(type="pe_dense.LayerMetric", metric=val_evaluator, key="rmse", higher_is_better=False)
test_evaluator = val_evaluator
custom_hooks = [sweep_hook]
