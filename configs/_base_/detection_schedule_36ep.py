"""36 of the 100 epochs of detection_schedule.py: drops of the learning rate and warm-up scale with the run."""

from mmengine.config import read_base

with read_base():
    from .detection_schedule import *

max_iters = 66_375
param_scheduler = [
    dict(warmup, end=91),  # 90 iterations
    dict(steps, end=max_iters, milestones=[59_000, 63_916]),
]
train_cfg.merge(dict(max_iters=max_iters))
