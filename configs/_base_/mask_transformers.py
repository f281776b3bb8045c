"""Mask transformers (EoMT, PMT) on PE towers: towers, heads, pipelines and schedules, as functions.

Sources: EoMT's code (tue-mps/eomt) with the settings of its DINOv2 configs, and PMT's (tue-mps/pmt). Towers with
patches of 14 px get patches of 16 px, as EoMT does with DINOv2.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""

ADE20K_EOMT = (39_153, 6_520)  # iterations of a run of 31 epochs, and of the annealing of one of 4 blocks
COCO_EOMT = (88_692, 14_782)  # 12 epochs
ADE20K_PMT = (20_208, [(0, 3000), (5384, 8749), (7403, 10769), (9422, 12788), (11442, 14807), (13461, 16826)])
COCO_PMT = (88_692, [(0, 3000), (23651, 38433), (32520, 47302), (41389, 56171), (50258, 65040), (59128, 73910)])
CITYSCAPES_EOMT = (19_902, 3_317)  # 107 epochs
# Heads of PMT's decoder and the blocks that it reads, by the size of the tower.
PMT_SIZES = dict(L14=(16, (5, 11, 17, 23)), B16=(12, (2, 5, 8, 11)), S16=(6, (2, 5, 8, 11)))


def mask_tower(arch, image_size, frozen=False):
    """A published tower with patches of 16 px."""
    return dict(
        type="pe_dense.PETower",
        arch=arch,
        img_size=image_size,
        patch_size=16,
        drop_path_rate=0.0,
        frozen=frozen,
        pad_to_patch=True,
        init_cfg=dict(type="Pretrained", checkpoint=f"hf://facebook/{arch}"),
    )


def eomt_model(tower, image_size, num_blocks, num_queries, **head):
    """Tower and head of EoMT; `head` is `decode_head` or `panoptic_head` with the numbers of classes."""
    ((part, classes),) = head.items()
    options = dict(type="pe_dense.EoMTHead", **classes, num_queries=num_queries, num_blocks=num_blocks)
    return {"backbone": mask_tower(tower, image_size), part: options}


def pmt_model(tower, image_size, num_queries, **head):
    """Frozen tower and head of PMT, see `eomt_model`."""
    ((part, classes),) = head.items()
    num_heads, taps = PMT_SIZES[tower.split("-")[2]]
    options = dict(
        type="pe_dense.PMTHead", **classes, num_queries=num_queries, num_heads=num_heads, interaction_indices=taps
    )
    return {"backbone": mask_tower(tower, image_size, frozen=True), part: options}


def eomt_schedule(max_iters, sixth, num_blocks):
    """Optimizer, scheduler, mask annealing and loop of EoMT.

    Args:
        max_iters: iterations of the run.
        sixth: iterations of the annealing of one block, about a sixth of the run. Each of 4 blocks follows the one
            before; between 3 blocks there are pauses of half that length.
        num_blocks: blocks with queries.
    """
    starts = {3: (2, 5, 8), 4: (2, 4, 6, 8)}[num_blocks]  # in halves of `sixth`
    annealing = [(start * sixth // 2, (start + 2) * sixth // 2) for start in starts]
    wrapper = dict(
        adamw(lr=1e-4),
        constructor="pe_dense.EoMTOptimWrapperConstructor",
        paramwise_cfg=dict(decay_rate=0.8),
    )
    scheduler = dict(type="pe_dense.TwoStageWarmupPolyLR", warmup=(500, 1000), begin=0, end=max_iters)
    return wrapper, [scheduler], annealing_hook(annealing), train_loop(max_iters)


def pmt_schedule(max_iters, annealing):
    """Optimizer, scheduler, mask annealing and loop of PMT; `annealing` of the decoder's six blocks."""
    schedulers = [
        dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=6000),
        dict(type="CosineAnnealingLR", eta_min=1e-9, by_epoch=False, begin=6000, end=max_iters),
    ]
    return adamw(lr=2e-4), schedulers, annealing_hook(annealing), train_loop(max_iters)


def adamw(lr):
    """AdamW with the weight decay and gradient clipping of both methods."""
    return dict(
        type="AmpOptimWrapper",
        dtype="bfloat16",
        optimizer=dict(type="AdamW", lr=lr, betas=(0.9, 0.999), weight_decay=0.05),
        clip_grad=dict(max_norm=0.01),
    )


def annealing_hook(intervals):
    """Hook of the mask annealing."""
    return dict(type="pe_dense.MaskAnnealingHook", intervals=intervals)


def train_loop(max_iters):
    """Loop of training with a validation every 5000 iterations."""
    return dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)


def semantic_model(image_size):
    """Model of semantic segmentation without tower and head. Padding is black: -1 after normalization."""
    return dict(
        type="pe_dense.MaskTransformerSegmentor",
        data_preprocessor=dict(
            type="pe_dense.ProbePreprocessor",
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
            size=(image_size, image_size),
            pad_val=-1,
            seg_pad_val=255,
        ),
        test_cfg=dict(mode="slide", crop_size=(image_size, image_size)),
    )


def semantic_pipeline(image_size, num_classes):
    """Pipeline of training for semantic segmentation."""
    return [
        dict(type="pe_dense.LoadImage"),
        dict(type="pe_dense.LoadLabelMap", num_classes=num_classes),
        dict(type="PhotoMetricDistortion"),
        dict(type="RandomFlip", prob=0.5),
        dict(type="RandomResize", scale=(image_size, image_size), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(image_size, image_size)),
        dict(type="PackSegInputs"),
    ]


def object_model(image_size, **test_cfg):
    """Model of instance or panoptic segmentation without tower and head. Padding is black: -1 after normalization."""
    return dict(
        type="pe_dense.MaskTransformerDetector",
        data_preprocessor=dict(
            type="DetDataPreprocessor",
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
            pad_size_divisor=image_size,
            pad_value=-1,
            pad_mask=True,
            pad_seg=True,
            seg_pad_value=255,
        ),
        test_cfg=test_cfg,
    )


def object_pipelines(image_size, annotations, pack_to_test):
    """Pipelines of training and testing for instance and panoptic segmentation."""
    load, size = dict(type="pe_dense.LoadImage"), dict(scale=(image_size, image_size), keep_ratio=True)
    train = [
        load,
        annotations,
        dict(type="RandomFlip", prob=0.5),
        dict(type="RandomResize", ratio_range=(0.1, 2.0), **size),
        dict(
            type="RandomCrop",
            crop_size=(image_size, image_size),
            crop_type="absolute",
            recompute_bbox=True,
            allow_negative_crop=True,
        ),
        dict(type="PackDetInputs"),
    ]
    return train, [load, dict(type="Resize", backend="pillow", **size), annotations, pack_to_test]
