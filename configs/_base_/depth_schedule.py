"""20 epochs of NYU depth v2, 16 pictures a step in all; the best epoch is kept."""

epoch = 24_231 // 16
max_iters = 20 * epoch

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=16)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=epoch),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=epoch, end=max_iters),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=epoch)
