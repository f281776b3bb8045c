"""Spatial alignment in miniature: from PE-Mini-Core to PE-Mini-Spatial on generated scenes, on a CPU in half an hour.

    tools/train.py configs/shapes_align_pe_mini.py

Departures from the published stage: annotated instance masks take the place of SAM; a third teacher gives each object's
tokens the pooled embedding of a crop around it, because PE-Mini's contrastive training leaves the forms in the pooled
token; no patch is masked; and the student has no LayerScale, so that it starts equal to the Core tower. Without the
second or the third teacher: --cfg-options model.locality_weight=0 or model.objects_weight=0
"""

from mmengine.config import read_base

with read_base():
    from ._base_.images_align import *

image_size = 128
data_root = "data/shapes_words"  # of shapes_clip_pe_tiny.py
core = "PE-Mini-Core"
max_iters = 1000

masks = dict(ann_file=f"{data_root}/annotations/instances_train.json", data_prefix=f"{data_root}/train")
model.merge(
    dict(
        image_size=image_size,
        backbone=dict(arch="PE-Mini-Spatial", drop_path_rate=0.0, with_cp=False),
        init_cfg=dict(checkpoint="pe-mini://core"),
        core=dict(tower=dict(arch=core), layer=5, dtype="float32"),
        sam=dict(masks, _delete_=True, type="pe_dense.InstanceMaskTeacher"),
        objects=dict(masks, type="pe_dense.ObjectCropTeacher", tower=dict(type="pe_dense.PETower", arch=core)),
        core_weight=0.5,
        mask_ratio=0.0,
    )
)
# The teacher of masks knows whole images only.
train_pipeline = [dict(type="pe_dense.PILToTensor")]
train_dataloader.merge(
    dict(batch_size=32, num_workers=1, dataset=dict(data_root=f"{data_root}/train", pipeline=train_pipeline))
)

optim_wrapper.merge(
    dict(
        accumulative_counts=1,
        optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02),
        clip_grad=dict(max_norm=1.0),
    )
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.03, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=max_iters, eta_min=0.0),
]
train_cfg.merge(dict(max_iters=max_iters))
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=100)))
log_processor.merge(dict(window_size=20))
custom_hooks = [dict(type="pe_dense.SkippedImagesHook")]
del masks
