"""Spatial alignment in miniature: from PE-Mini-Core to PE-Mini-Spatial on generated scenes, on a CPU.

    tools/train.py configs/shapes_align_pe_mini.py

Two departures from the published stage: annotated instance masks take the place of SAM, and the student has no
LayerScale, so that it starts equal to the Core tower. Without the second teacher: --cfg-options model.locality_weight=0
"""

from mmengine.config import read_base

with read_base():
    from ._base_.images_align import *

image_size = 128
data_root = "data/shapes_words"  # of shapes_clip_pe_tiny.py
core = "PE-Mini-Core"
max_iters = 400

model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch="PE-Mini-Spatial", drop_path_rate=0.1, with_cp=False),
        init_cfg=dict(checkpoint="pe-mini://core"),
        core=dict(tower=dict(arch=core), layer=5, dtype="float32"),
        sam=dict(
            _delete_=True,
            type="pe_dense.InstanceMaskTeacher",
            ann_file=f"{data_root}/annotations/instances_train.json",
            data_prefix=f"{data_root}/train",
        ),
    )
)
# The teacher of masks knows whole images only.
train_pipeline = [dict(type="pe_dense.PILToTensor")]
train_dataloader.merge(
    dict(batch_size=32, num_workers=1, dataset=dict(data_root=f"{data_root}/train", pipeline=train_pipeline))
)

optim_wrapper.merge(dict(accumulative_counts=1, optimizer=dict(lr=3e-3)))
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, eta_min=0.0)]
train_cfg.merge(dict(max_iters=max_iters))
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=100)))
log_processor.merge(dict(window_size=20))
custom_hooks = [dict(type="pe_dense.SkippedImagesHook")]
