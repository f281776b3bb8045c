"""Layer sweep: linear probes on ADE20k for all layers of a tower.

    tools/train.py configs/ade20k_sweep_pe.py --cfg-options tower=PE-Spatial-B16-512

The run writes a table and a plot of mIoU by layer to the log folder, and the best probe for the tower's
ade20k_linear_pe_*.py. `tower` is any published tower or one of timm (`tower=timm/vit_small_patch16_dinov3`),
PE-Spatial-G14-448 by default; it sets the sizes of images, too, and its name is part of that of the default work dir.
Some layers only, a grid of rates at once: --cfg-options model.backbone.out_indices=[3,7,11]
model.learning_rates=[1e-3,1e-2] model.weight_decays=[0.0,1e-4]
"""

from mmengine.config import read_base

with read_base():
    from ._base_.ade20k_linear import *
    from ._base_.segmentation_sweep import *

model.merge(sweep)
optim_wrapper.merge(dict(constructor=sweep_constructor))
val_evaluator = sweep_evaluator
test_evaluator = sweep_evaluator
custom_hooks = [*custom_hooks, dict(type="pe_dense.SweepHook", title="ADE20k linear probe", unit="%")]
tta_model = None  # for single probes: the logits of all would not fit in memory
