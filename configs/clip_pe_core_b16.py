"""Both towers of PE Core B, fine-tuned on captions of your own.

torchrun --nproc_per_node=8 tools/train.py configs/clip_pe_core_b16.py --launcher pytorch

The rates are not published ones: AdamW of CLIP, a hundredth of its learning rate for pretraining, and layer decay.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.captions import *
    from ._base_.runtime import *

image_size = 224
max_iters = 5000

model = dict(
    type="pe_dense.ContrastiveCLIP",
    backbone=dict(type="pe_dense.PETower", arch="PE-Core-B16-224", with_cp=True),
    text_with_cp=True,
    image_size=image_size,
    loss="softmax",
    init_cfg=dict(type="Pretrained", checkpoint="hf://facebook/PE-Core-B16-224"),
)
train_dataloader.dataset.pipeline = caption_pipeline(image_size)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1e-5, betas=(0.9, 0.98), weight_decay=0.1),
    constructor="pe_dense.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.8, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = warm_up_and_cosine(500, max_iters)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
default_hooks.merge(dict(checkpoint=dict(interval=1000)))
del caption_pipeline, warm_up_and_cosine
