"""Mask R-CNN's schedule of 15 epochs."""

from mmengine.config import read_base

with read_base():
    from .detection_schedule import *

max_iters, param_scheduler, train_cfg = step_schedule(epochs=15)
del step_schedule, ITERATIONS_OF_100_EPOCHS
