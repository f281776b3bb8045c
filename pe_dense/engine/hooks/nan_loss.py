"""Stopping where a loss is no number."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.registry import HOOKS
from pe_dense.utils.atomic_write import write_text
from pe_dense.utils.errors import InputError


class NonFiniteLossError(InputError):
    """A loss is infinite or no number."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at the first loss that is infinite or no number, before a checkpoint could be written after it.

    The names of the batch's images go to ``non_finite_loss_iter_<step>_rank_<rank>.txt`` in the work dir.

    Raises:
        NonFiniteLossError: naming the loss, the step and that file.
    """

    priority = "NORMAL"  # before the hook that saves

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """See the class."""
        values = {name: float(torch.as_tensor(value).detach()) for name, value in outputs.items()}
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        if not bad:
            return
        step = runner.iter + 1
        paths = data_batch["path"]
        note = Path(runner.work_dir) / f"non_finite_loss_iter_{step}_rank_{runner.rank}.txt"
        write_text(note, "\n".join(paths) + "\n")
        raise NonFiniteLossError(
            f"step {step}: {bad}. The {len(paths)} images of the batch are listed in {note}; go on from the last "
            "checkpoint with --resume"
        )
