"""Small-scale LVIS recipe on generated shapes in LVIS format: federated loss, repeat-factor sampling, large-scale
jitter, layer decay and EMA, on a CPU in minutes.

    tools/train.py configs/shapes_lvis_maskrcnn_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from .shapes_maskrcnn_pe_tiny import *

data_root = "data/shapes_hard"
generator = dict(num_train=1000, num_val=80, difficulty="hard")  # rare classes, up to eight shapes
hard_scenes = dict(data_root=data_root, generator=generator)

model.merge(
    dict(
        roi_head=dict(
            bbox_head=dict(
                loss_cls=dict(
                    type="pe_dense.FederatedLoss",
                    num_classes=8,
                    num_sampled=5,
                    ann_file=f"{data_root}/annotations/lvis_train.json",
                )
            )
        ),
        test_cfg=dict(rcnn=dict(score_thr=0.02, max_per_img=300)),
    )
)

train_dataloader.merge(
    dict(
        # 0.4 for a few hundred images; 1e-3 for the 100,000 of LVIS
        sampler=dict(_delete_=True, type="pe_dense.RepeatFactorSampler", threshold=0.4),
        dataset=dict(
            hard_scenes,
            type="pe_dense.ShapesLVISDataset",
            ann_file="annotations/lvis_train.json",
            data_prefix=dict(img=""),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[
                dict(type="pe_dense.LoadImage"),
                dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
                dict(type="RandomFlip", prob=0.5),
                dict(
                    type="RandomResize",
                    ratio_range=(0.5, 2.0),
                    scale=(image_size, image_size),
                    keep_ratio=True,
                    backend="pillow",
                ),
                dict(
                    type="RandomCrop",
                    crop_size=(image_size, image_size),
                    crop_type="absolute",
                    recompute_bbox=True,
                    allow_negative_crop=True,
                ),
                dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
                dict(type="PackDetInputs"),
            ],
        ),
    )
)
val_dataloader.merge(
    dict(
        dataset=dict(
            hard_scenes,
            type="pe_dense.ShapesLVISDataset",
            ann_file="annotations/lvis_val.json",
            data_prefix=dict(_delete_=True, img=""),
        )
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="pe_dense.LVISMetric", ann_file=f"{data_root}/annotations/lvis_val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator

optim_wrapper.merge(dict(constructor="pe_dense.LayerDecayOptimWrapperConstructor", paramwise_cfg=dict(decay_rate=0.9)))
custom_hooks = [*custom_hooks, dict(type="EMAHook", momentum=0.01)]
del hard_scenes
