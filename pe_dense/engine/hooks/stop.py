"""End a run between two iterations after SIGTERM or SIGINT."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.engine import fsdp
from pe_dense.utils.signals import STOP, StopRun


class StopHook(Hook):
    """Raise :class:`~pe_dense.utils.signals.StopRun` where a checkpoint can be written.

    That is before an iteration that follows an update of the weights, and before, during and after validation. All
    processes of a run stop before the same iteration; during validation they need not agree, unless the model is
    sharded, since then its weights are collected from all of them.
    """

    priority = "HIGHEST"

    def __init__(self) -> None:
        self.began = False  # before, nothing is worth a checkpoint, and what is resumed from may be loaded in part

    def before_train(self, runner: Runner) -> None:
        """From now on signals wait for a consistent state."""
        self.began = STOP.deferred = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Stop before the iteration whose data is there."""
        if after_update(runner):
            self._check(runner)

    def before_val(self, runner: Runner) -> None:
        """Stop before validation, or let a signal interrupt it."""
        if runner.train_loop is not None and STOP.deferred:
            self._check(runner)
            STOP.deferred = runner.world_size > 1 and fsdp.is_sharded(runner.model)

    def after_val(self, runner: Runner) -> None:
        """Back to training."""
        STOP.deferred = True

    def after_train(self, runner: Runner) -> None:
        """Nothing is lost any more."""
        STOP.deferred = False

    @staticmethod
    def _check(runner: Runner) -> None:
        signum = STOP.requested or 0
        if runner.world_size > 1:
            signal = torch.tensor(signum)
            all_reduce(signal, op="max")
            signum = int(signal)
        if signum:
            raise StopRun(signum, agreed=True)


def after_update(runner: Runner) -> bool:
    """Whether the last iteration ended with an update of the weights, or none was run (no gradient is pending)."""
    return runner.iter % getattr(runner.optim_wrapper, "_accumulative_counts", 1) == 0
