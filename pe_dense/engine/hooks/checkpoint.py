"""Hooks that save checkpoints and stop a run on signals."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process, master_only
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.engine import fsdp
from pe_dense.utils.atomic_write import write_bytes
from pe_dense.utils.checkpoint import read_checkpoint
from pe_dense.utils.signals import STOP, StopRun


class CheckpointHook(_CheckpointHook):
    """MMEngine's ``CheckpointHook``, which here always keeps a complete checkpoint, named in ``last_checkpoint``.

    MMEngine's removes the oldest before it writes the newest (all there is, with ``max_keep_ckpts=1``), and the best so
    far before it writes a better one. A kill while it rewrites ``last_checkpoint`` leaves that empty.
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

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best:
            return
        # MMEngine's method removes the files that it finds here, so it finds none.
        before, after = self._best_paths(), dict.fromkeys(self._best_paths())
        self._set_best_paths(after)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            after = self._best_paths()
            self._set_best_paths({name: after.get(name) or path for name, path in before.items()})
        for name, path in before.items():
            if path and after[name] not in (None, path) and is_main_process():
                Path(path).unlink(missing_ok=True)

    def _best_paths(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {"": self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[""]
        else:
            self.best_ckpt_path_dict = paths

    @master_only
    def _publish_model(self, runner, ckpt_path: str) -> None:
        content = read_checkpoint(ckpt_path)
        buffer = io.BytesIO()
        torch.save({key: value for key, value in content.items() if key in self.published_keys}, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
        path = Path(ckpt_path).with_name(f"{Path(ckpt_path).stem}-{digest}.pth")
        write_bytes(path, buffer.getbuffer())
        runner.logger.info(f"The keys {', '.join(self.published_keys)} of {ckpt_path} are published as {path}")


class StopHook(Hook):
    """After a signal, raise :class:`~pe_dense.utils.signals.StopRun` at a point where a checkpoint can be written.

    These points are before an iteration that follows a weight update, and before, during and after validation. All
    processes of a run stop before the same iteration; during validation they need not agree, unless the model is
    sharded, since its weights are then gathered from all processes.
    """

    priority = "HIGHEST"

    def __init__(self) -> None:
        self.began = False  # before that, there is nothing to save, and a resumed state may be partly loaded

    def before_train(self, runner: Runner) -> None:
        """Defer signals until the training state is consistent."""
        self.began = STOP.deferred = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Stop before the next iteration if a signal was received."""
        if after_update(runner):
            self._check(runner)

    def before_val(self, runner: Runner) -> None:
        """Stop before validation, or let a signal interrupt it."""
        if runner.train_loop is not None and STOP.deferred:
            self._check(runner)
            STOP.deferred = runner.world_size > 1 and fsdp.is_sharded(runner.model)

    def after_val(self, runner: Runner) -> None:
        """Defer signals again after validation."""
        STOP.deferred = True

    def after_train(self, runner: Runner) -> None:
        """Stop deferring signals, since training is complete."""
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
    """Return whether no gradient is pending: the last iteration ended with a weight update, or none was run."""
    return runner.iter % getattr(runner.optim_wrapper, "_accumulative_counts", 1) == 0
