"""DETA's schedule as a function of the length of an epoch.

MMEngine keeps functions that a config imports: delete them there once they have been called.
"""


def epoch_schedule(num_images, batch_size, epochs, drop_after):
    """Constant learning rate, a tenth of it after the epoch `drop_after`; validation after each epoch.

    Args:
        num_images: images of an epoch; its last batch may be smaller.
        batch_size: images of a batch over all GPUs.
    """
    epoch = -(-num_images // batch_size)  # rounded up
    max_iters = epochs * epoch
    drop = dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[drop_after * epoch], gamma=0.1)
    train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
    return max_iters, [drop], train_cfg, dict(enable=False, base_batch_size=batch_size)
