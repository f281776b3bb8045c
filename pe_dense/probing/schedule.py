"""Schedules of DINOv3's linear probes."""

from __future__ import annotations

import math

from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from pe_dense.registry import PARAM_SCHEDULERS
from pe_dense.utils.errors import InputError


class _WarmUp(_ParamScheduler):
    """Base class of schedules of a parameter that begin with a warm-up.

    Args:
        optimizer: optimizer or its wrapper.
        param_name: key of the parameter groups.
        warmup: iterations W of the warm-up.
        begin, end, last_step, by_epoch, verbose: see MMEngine's schedulers; T is ``end - begin``.

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(
        self,
        optimizer,
        param_name: str,
        warmup: int = 12_800,
        begin: int = 0,
        end: int = 38_400,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ):
        if not 0 <= warmup < end - begin:
            raise InputError(f"a warm-up of {warmup} does not fit into {end - begin} iterations")
        self.warmup = warmup
        super().__init__(
            optimizer, param_name, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose
        )


@PARAM_SCHEDULERS.register_module()
class DINOv3ProbeLR(_WarmUp):
    """Linear warm-up under a linear decay, then a cosine that runs over the whole training.

    Step t of T has the factor ``(1 - (1 - t / W) * (1 - 1e-6)) * (1 - t / T)`` for t < W, afterwards
    ``0.5 * (1 + cos(pi * (t + 1) / T))``; iteration n is step n - 1, because the first update of the schedule is
    skipped. Source: DINOv3's code, ``eval/segmentation/schedulers.py``.

    Args:
        optimizer: optimizer or its wrapper.
        warmup: iterations W of the warm-up.
        end: end of the schedule.
        options: further arguments of MMEngine's schedulers: ``begin``, ``last_step`` ...; T is ``end - begin``.

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(self, optimizer, warmup: int = 1500, end: int = 40_000, **options):
        super().__init__(optimizer, "lr", warmup=warmup, end=end, **options)

    def _get_value(self) -> list[float]:
        step, total = max(self.last_step - 1, 0), self.end - self.begin
        if step < self.warmup:
            factor = (1 - (1 - step / self.warmup) * (1 - 1e-6)) * (1 - step / total)
        else:
            factor = _cosine((step + 1) / total)
        return [base * factor for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class DINOv3DepthLR(_WarmUp):
    """Linear warm-up under a cosine that runs over the whole training.

    Step t of T has the factor ``1e-3 + c(t) * t / W`` with ``c(t) = 0.5 * (1 + cos(pi * t / T))`` for t < W, afterwards
    ``m + (1 - m) * c(t + 1)`` with m = 4e-5. Source: DINOv3's code, ``WarmupOneCycleLR`` in
    ``eval/depth/schedulers.py``.

    Args:
        optimizer: optimizer or its wrapper.
        options: further arguments of the schedule: ``warmup``, ``begin``, ``end`` ...

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(self, optimizer, **options):
        super().__init__(optimizer, "lr", **options)

    def _get_value(self) -> list[float]:
        step, total = self.last_step, self.end - self.begin
        if step < self.warmup:
            factor = 1e-3 + _cosine(step / total) * step / self.warmup
        else:
            lowest = 1 / 25 / 1000
            factor = lowest + (1 - lowest) * _cosine((step + 1) / total)
        return [base * factor for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class DINOv3DepthMomentum(MomentumSchedulerMixin, _WarmUp):
    """First beta of AdamW: 0 during the warm-up, then from 0.85 to 0.95 in a cosine.

    0 is what the published code does: its schedule has no momentum for the warm-up. Source: as of
    :class:`DINOv3DepthLR`; arguments and errors are the same.
    """

    def _get_value(self) -> list[float]:
        step, total = self.last_step, self.end - self.begin
        share = _cosine((step - self.warmup) / (total - self.warmup))
        value = 0.0 if step < self.warmup else 0.95 - 0.1 * share
        return [value for _ in self.base_values]


def _cosine(progress: float) -> float:
    """Fall from 1 to 0 as the progress goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
