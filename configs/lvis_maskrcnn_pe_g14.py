"""Mask R-CNN with PE Spatial G on LVIS v1, 75 epochs: published box/mask AP 54.2/49.3.

    tools/train.py configs/lvis_maskrcnn_pe_g14.py --launcher pytorch

Source: Perception Encoder, section 5.3 and its detection code's recipe (1024 px, windows of 32, 64 images per step).

On one GPU with 24 GB: --lora 16 --cfg-options train_dataloader.batch_size=2 optim_wrapper.accumulative_counts=32. By
calculation (docs/lora.md) two images take 16 GiB: 7 of frozen weights, 1 of adapters, heads and their optimizer state,
7 of activations with activation checkpointing.
"""

from mmengine.config import read_base

with read_base():
    from ._base_.detection_schedule_75ep import *
    from ._base_.lvis_maskrcnn import *
