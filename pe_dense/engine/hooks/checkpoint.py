"""Checkpoints of a training run."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.engine import fsdp
from pe_dense.utils.atomic_write import write_bytes
from pe_dense.utils.signals import STOP, StopRun


class CheckpointHook(_CheckpointHook):
    """As MMEngine's, but at every moment the run has a complete checkpoint, and ``last_checkpoint`` names one.

    MMEngine's removes the oldest before it writes the newest (all there is, with ``max_keep_ckpts=1``), and a kill
    while it rewrites ``last_checkpoint`` leaves that empty.
    """

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and not (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(Path(self.out_dir) / name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            file_client_args=self.file_client_args,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_bytes(Path(runner.work_dir) / "last_checkpoint", os.fsencode(self.last_ckpt))
            if outdated is not None:
                (Path(self.out_dir) / self.filename_tmpl.format(outdated)).unlink(missing_ok=True)


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
