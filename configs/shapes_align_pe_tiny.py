"""Small-scale Spatial alignment, minutes on a CPU: the teachers are PE-Mini-Core and a tiny random SAM.

tools/train.py configs/shapes_align_pe_tiny.py

A random SAM does not separate objects; the run only tests the code. shapes_align_pe_mini.py has a teacher that does.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.image_folder import image_pipeline
    from ._base_.images_align import *

image_size = 128
data_root = "data/shapes"
core = "PE-Mini-Core"
max_iters = 300

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch=dict(base="PE-Mini-Spatial", ls_init_value=0.1), drop_path_rate=0.1, with_cp=False),
        init_cfg=dict(checkpoint="pe-mini://core"),
        core=dict(tower=dict(arch=core), layer=4, dtype="float32"),
        sam=dict(
            size="t",
            checkpoint=None,
            image_size=image_size,
            points_per_side=8,
            dtype="float32",
            overrides=[
                "model.image_encoder.trunk.embed_dim=16",
                "model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
                "model.image_encoder.neck.d_model=64",
                "model.image_encoder.neck.position_encoding.num_pos_feats=64",
            ],
        ),
    )
)

train_pipeline = image_pipeline(image_size)
train_dataloader.merge(
    dict(batch_size=8, num_workers=1, dataset=dict(data_root=f"{data_root}/train", pipeline=train_pipeline))
)
del image_pipeline

optim_wrapper.merge(dict(type="OptimWrapper", accumulative_counts=1, optimizer=dict(lr=1e-2)))
optim_wrapper.pop("dtype")
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, eta_min=0.0)]
train_cfg.merge(dict(max_iters=max_iters))

default_hooks.merge(dict(logger=dict(interval=10), checkpoint=dict(interval=50)))
log_processor.merge(dict(window_size=10))
custom_hooks = [
    dict(type="pe_dense.SkippedImagesHook"),
    dict(
        type="pe_dense.FeaturePictureHook",
        images=[f"{data_root}/val/{number:06}.png" for number in range(4)],
        size=image_size,
        interval=100,
    ),
]
