"""The published optimizer and schedule: 24,000 updates by batches of 12,288 images.

MMEngine counts batches, not updates: all that is counted in iterations goes with `accumulative_counts`. On other
machines change the first two numbers here, all else follows. The decay of the learning rate is not published; here it
falls to 0 by a cosine.
"""

gpus = 8
images_per_gpu = 64
accumulative_counts = 12_288 // (gpus * images_per_gpu)
max_iters = 24_000 * accumulative_counts

optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    accumulative_counts=accumulative_counts,
    optimizer=dict(type="pe_dense.Lamb", lr=5e-4, betas=(0.9, 0.95), weight_decay=0.05, max_grad_norm=1.0),
)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, eta_min=0.0)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
