"""Layer sweep: linear probes in DINOv3's form on ADE20k for all layers of a tower.

    tools/train.py configs/ade20k_dinov3_sweep_pe.py --cfg-options tower=PE-Spatial-B16-512

Options as in ade20k_sweep_pe.py. A probe of the sweep runs with ade20k_dinov3_linear_pe.py.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_linear import *
    from ._base_.dinov3_probe import *
    from ._base_.segmentation_sweep import *

model.merge(dinov3_model)
optim_wrapper.merge(dinov3_optim_wrapper)
param_scheduler = [dict(dinov3_scheduler, end=max_iters)]
train_cfg.merge(dinov3_train_cfg)
model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = sweep_evaluator
test_evaluator = sweep_evaluator
custom_hooks = [*custom_hooks, dict(type="pe_dense.SweepHook", title="ADE20k linear probe, DINOv3's form", unit="%")]
tta_model = None  # for single probes: the logits of all would not fit in memory
