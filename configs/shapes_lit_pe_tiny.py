"""Text embeddings for the patches of the tower that `make demo` trains, on captions of generated scenes, on a CPU.

tools/train.py configs/shapes_lit_pe_tiny.py
"""

from mmengine.config import read_base

with read_base():
    from ._base_.runtime import *
    from ._base_.shapes_captions import *
    from ._base_.tiny_tower import *

weights_source = "`make demo` trains them"
image_size = 128
max_iters = 600

model = dict(
    type="pe_dense.LiT",
    backbone=dict(
        tiny_tower,
        type="pe_dense.FrozenTower",
        pos_embed="tile",  # as in the detector that it comes from
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/demo"),
    ),
    image_size=image_size,
    text=dict(context_length=48, width=96, heads=3, layers=2),
    head_layers=2,
    drop_path=0.0,
    loss="softmax",
)
image_pipeline = [
    dict(type="pe_dense.Resize", size=(image_size, image_size)),
    dict(type="pe_dense.PILToTensor"),
]
for loader in (train_dataloader, val_dataloader, test_dataloader):
    loader.dataset.pipeline = image_pipeline
train_dataloader.merge(dict(batch_size=64))

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=200)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks.merge(dict(logger=dict(interval=20), checkpoint=dict(interval=200)))
del loader
