"""Linear depth head on PE Spatial G: 20 epochs of NYU depth v2, 16 images per step; the best epoch is kept."""

from mmengine.config import read_base

with read_base():
    from .nyu import *
    from .probe import *
    from .runtime import *

model.merge(
    dict(
        type="pe_dense.DepthProbe",
        data_preprocessor=dict(size=crop_size, seg_pad_val=0),
        decode_head=dict(type="pe_dense.LinearDepthHead", min_depth=min_depth, max_depth=max_depth),
        test_cfg=dict(mode="whole"),
    )
)

max_iters = 20 * epoch
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=images_per_step)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=epoch),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=epoch, end=max_iters),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
default_hooks.merge(dict(checkpoint=dict(interval=epoch, max_keep_ckpts=1, save_best="rmse", rule="less")))
inferencer = dict(type="pe_dense.DepthPredictor")
