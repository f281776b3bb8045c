"""The published detectors' optimizer and schedule: 100 epochs of COCO are 184,375 iterations of 64 images.

Shorter runs scale everything, the warm-up included: detection_schedule_{15,36,75}ep.py.
"""

max_iters = 184_375  # of batches of 64 images in all, over all GPUs

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.999), weight_decay=0.1),
    constructor="pe_dense.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.9),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
warmup = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=251)  # full rate at iteration 250
steps = dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[163_889, 177_546], gamma=0.1)
param_scheduler = [warmup, steps]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
