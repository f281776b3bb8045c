"""The published optimizer and schedule: 24,000 updates by batches of 12,288 images; and pictures of features.

MMEngine counts batches, not updates: everything that is counted in iterations is multiplied by `accumulative_counts`.
On other machines change the first two numbers here, the others follow. The decay of the learning rate is not
published; here it is a cosine to 0.
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

# A checkpoint between two updates would lose the accumulated gradients.
checkpoint_interval = 200 * accumulative_counts
custom_hooks = [
    dict(type="pe_dense.SkippedImagesHook"),
    # Draw the features of a few images during training.
    dict(type="pe_dense.FeaturePictureHook", images="data/pictures", interval=checkpoint_interval),
]
default_scope = "mmengine"
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
