"""Mask R-CNN on a PE tower: the published detectors' model (ViTDet's, with LayerNorm in pyramid and heads)."""

image_size = 1024  # square, in pixels; a changed value reaches tower, padding and pipelines
norm_cfg = dict(type="pe_dense.LayerNorm2d", eps=1e-6)

model = dict(
    type="pe_dense.MaskRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[127.0] * 3,
        std=[127.0] * 3,
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=image_size,
    ),
    backbone=dict(
        type="pe_dense.PETower",
        arch="PE-Spatial-G14-448",
        img_size=image_size,
        patch_size=16,
        window_size=32,
        global_blocks=(12, 24, 36, 49),
        pos_embed="tile",
        rope_reference_grid=32,
        drop_path_rate=0.5,
        drop_path_schedule="linear",
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint="hf://facebook/PE-Spatial-G14-448"),
    ),
    neck=dict(type="pe_dense.SimpleFeaturePyramid", in_channels=1536, out_channels=256),
    rpn_head=dict(
        type="pe_dense.RPNHead",
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64], center_offset=0.0
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss"),
    ),
    roi_head=dict(
        type="pe_dense.RoIHead",
        bbox_roi_extractor=dict(
            type="pe_dense.SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead",
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=80,
            norm_cfg=norm_cfg,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type="CrossEntropyLoss"),
            loss_bbox=dict(type="L1Loss"),
        ),
        mask_roi_extractor=dict(
            type="pe_dense.SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            norm_cfg=norm_cfg,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="pe_dense.MaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.0,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type="RandomSampler", num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5),
    ),
)
custom_hooks = [dict(type="pe_dense.ClassCheckHook")]
default_scope = "mmdet"
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
tta_model = dict(type="pe_dense.MaskRCNNTTAModel")  # for `--tta`
