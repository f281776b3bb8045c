"""The published Mask R-CNN's optimizer and schedule; detection_schedule_{15,36,75,100}ep.py call `step_schedule`."""

ITERATIONS_OF_100_EPOCHS = 184_375  # of batches of 64 images over all GPUs

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.999), weight_decay=0.1),
    constructor="pe_dense.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.9),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")


def step_schedule(epochs):
    """Warm-up and two drops of the learning rate, in proportion to the length of the run, as in Detectron2.

    Of 100 epochs, the full rate is reached at iteration 250, and divided by ten at 163,889 and 177,546.
    """
    max_iters, first_drop, second_drop = (
        iterations * epochs // 100 for iterations in (ITERATIONS_OF_100_EPOCHS, 163_889, 177_546)
    )
    warmup = -(-250 * epochs // 100)  # rounded up
    schedulers = [
        dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=warmup + 1),
        dict(
            type="MultiStepLR",
            by_epoch=False,
            begin=0,
            end=max_iters,
            milestones=[first_drop, second_drop],
            gamma=0.1,
        ),
    ]
    return max_iters, schedulers, dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
