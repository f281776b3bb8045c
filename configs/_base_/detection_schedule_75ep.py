"""75 of the 100 epochs of detection_schedule.py: drops of the learning rate and warm-up scale with the run."""

from mmengine.config import read_base

with read_base():
    from .detection_schedule import *

max_iters = 138_281
param_scheduler = [
    dict(warmup, end=189),  # 187.5 iterations, rounded up
    dict(steps, end=max_iters, milestones=[122_916, 133_159]),
]
train_cfg.merge(dict(max_iters=max_iters))
