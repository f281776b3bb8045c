"""Learning-rate schedule of DINOv3's linear probes."""

from __future__ import annotations

import math

from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from pe_dense.registry import PARAM_SCHEDULERS
from pe_dense.utils.errors import InputError


@PARAM_SCHEDULERS.register_module()
class DINOv3ProbeLR(_ParamScheduler):
    """Linear warm-up under a linear decay, then a cosine that runs over the whole training.

    Step t of T has the factor ``(1 - (1 - t / W) * (1 - 1e-6)) * (1 - t / T)`` for t < W, afterwards
    ``0.5 * (1 + cos(pi * (t + 1) / T))``; iteration n is step n - 1, because the first update of the schedule is
    skipped. Source: DINOv3's code, ``eval/segmentation/schedulers.py``.

    Args:
        optimizer: optimizer or its wrapper.
        warmup: iterations W of the warm-up.
        begin, end, last_step, by_epoch, verbose: see MMEngine's schedulers; T is ``end - begin``.

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(
        self,
        optimizer,
        warmup: int = 1500,
        begin: int = 0,
        end: int = 40_000,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ):
        if not 0 <= warmup < end - begin:
            raise InputError(f"a warm-up of {warmup} does not fit into {end - begin} iterations")
        self.warmup = warmup
        super().__init__(optimizer, "lr", begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    def _get_value(self) -> list[float]:
        step, total = max(self.last_step - 1, 0), self.end - self.begin
        if step < self.warmup:
            factor = (1 - (1 - step / self.warmup) * (1 - 1e-6)) * (1 - step / total)
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step + 1) / total))
        return [base * factor for base in self.base_values]
