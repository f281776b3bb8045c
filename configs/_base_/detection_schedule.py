"""The published detectors' optimiser and schedule: 100 epochs of COCO are 184,375 iterations of 64 images."""

max_iters = 184_375  # of batches of 64 images in all, over all GPUs

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.999), weight_decay=0.1),
    constructor="pe_dense.LayerDecayConstructor",
    paramwise_cfg=dict(decay_rate=0.9),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)


param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[max_iters * 8 // 9, max_iters * 26 // 27],
        gamma=0.1,
    ),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
