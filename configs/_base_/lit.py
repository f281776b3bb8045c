"""Text for a frozen PE Spatial tower: head and schedule of dino.txt, text tower of PE Core, captions of shards."""

from mmengine.config import read_base

with read_base():
    from .captions import *
    from .runtime import *

image_size = 224
max_iters = 50_000
data_root = "data/captions/shard-{000000..000999}.tar"

model = dict(
    type="pe_dense.LiT",
    backbone=dict(
        type="pe_dense.FrozenTower",
        arch=None,
        dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint=None),
    ),
    image_size=image_size,
    text=None,
    head_layers=2,
    drop_path=0.3,
    text_with_cp=True,
    loss="softmax",
    init_cfg=dict(type="Pretrained", checkpoint=None),
)
train_dataloader.merge(
    dict(
        sampler=dict(_delete_=True, type="pe_dense.ShardSampler"),
        dataset=dict(_delete_=True, type="pe_dense.WebCaptions", urls=data_root, pipeline=caption_pipeline(image_size)),
    )
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=7e-4, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = warm_up_and_cosine(2000, max_iters)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
del caption_pipeline, warm_up_and_cosine


def towers(size, image_size, core):
    """The frozen PE Spatial tower and the PE Core model whose text tower is the first one."""
    spatial = f"PE-Spatial-{size}-{image_size}"
    return dict(
        backbone=dict(arch=spatial, init_cfg=dict(checkpoint=f"hf://facebook/{spatial}")),
        text=core,
        init_cfg=dict(checkpoint=f"hf://facebook/{core}"),
    )
