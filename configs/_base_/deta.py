"""DETA on a PE tower: the published 66.0 AP detector's model ("Gwin384": windows and positions of 24 x 24), and how it
is trained.

Learning rates fall with the tower's depth by `paramwise_cfg.decay_rate`, 1.0 turns that off. Every published script
asks for the decay of 0.9, but the published code applies it only to backbones of an older name, so the released
detector was probably trained without. It is on here, since it is what the recipe says.
"""

image_size = 1024  # square, in pixels; a changed value reaches tower, padding and pipelines

model = dict(
    type="pe_dense.DETA",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        # ImageNet's, as in the published detector; all other recipes use those of the towers.
        mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
        std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
        bgr_to_rgb=True,
        pad_size_divisor=image_size,
    ),
    backbone=dict(
        type="pe_dense.PETower",
        arch="PE-Spatial-G14-448",
        img_size=image_size,
        patch_size=16,
        grid_size=24,
        window_size=24,
        global_blocks=(12, 24, 36, 49),
        pos_embed="tile",
        rope_reference_grid=16,
        drop_path_rate=0.5,
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint="hf://facebook/PE-Spatial-G14-448"),
    ),
    neck=dict(type="pe_dense.DETAPyramid", in_channels=1536),
    bbox_head=dict(
        type="pe_dense.DETAHead",
        num_classes=80,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    num_queries=900,
    train_cfg=dict(
        first_stage=dict(type="pe_dense.DETAAssigner", pos_iou_thr=0.7, max_positives=128),
        second_stage=dict(type="pe_dense.DETAAssigner", pos_iou_thr=0.6, max_positives=0.25),
    ),
    test_cfg=dict(pre_nms=10_000, nms=dict(type="nms", iou_threshold=0.7), max_per_img=100),
)

# For `--tta`: more queries and views of four sizes, each with and without a flip. Soft-NMS is applied to each view and
# to all of them together; the two smaller sizes contribute boxes of more than 64 x 64 px only. The published code notes
# that `quad_scale` 0.4 may be needed for 66.0 AP, its default 0.5 gives 65.9.
tta_model = dict(
    type="pe_dense.DETATTAModel",
    min_sides=(0, 0, 64, 64),
    num_queries=2000,
    pre_nms=2000,
    nms=dict(type="soft_nms", iou_threshold=0.7, min_score=0.001, quad_scale=0.5),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor="pe_dense.DETAOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.9),
)
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
default_scope = "mmdet"
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
