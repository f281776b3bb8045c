"""What probes on generated shapes share: the tower that `make demo` trains, data and a schedule of CPU minutes."""

from mmengine.config import read_base

with read_base():
    from .probe import *
    from .shapes import data_root, generator, image_size
    from .tiny_tower import *

model.merge(
    dict(
        data_preprocessor=dict(size=(image_size, image_size)),
        backbone=dict(
            tiny_tower,
            _delete_=True,
            type="pe_dense.FrozenTower",
            pos_embed="tile",  # as in the detector that it comes from
            init_cfg=dict(type="Pretrained", checkpoint="work_dirs/demo"),
        ),
        test_cfg=dict(mode="whole"),
    )
)
weights_source = "`make demo` trains them"

max_iters = 400
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=5e-3, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 2)
default_hooks.merge(dict(logger=dict(interval=25), checkpoint=dict(interval=max_iters // 2)))

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root, generator=generator),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(data_root=data_root, generator=generator, test_mode=True),
)
