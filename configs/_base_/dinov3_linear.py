"""Linear segmentation probe of PE Spatial G in DINOv3's form, without data: `segmentation_data` makes the loaders."""

from mmengine.config import read_base

with read_base():
    from .dinov3_probe import *
    from .probe import *
    from .probe_schedule import *
    from .runtime import *
    from .segmentation_data import *

image_size = sizes_by_patch.patch14.image_size  # 1,024 patches

model.merge(
    dict(
        type="pe_dense.SegmentationProbe",
        data_preprocessor=dict(size=(image_size, image_size)),
        decode_head=dict(type="pe_dense.LinearHead"),
        test_cfg=dict(mode="slide", crop_size=(image_size, image_size)),
    )
)
model.merge(dinov3_model)
optim_wrapper.merge(dinov3_optim_wrapper)
param_scheduler = [dict(dinov3_scheduler, end=max_iters)]
train_cfg.merge(dinov3_train_cfg)
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
inferencer = dict(type="pe_dense.SegmentationPredictor")
