"""End a run at the first NaN or infinite loss or gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from pe_dense.registry import HOOKS
from pe_dense.utils.atomic_write import write_text
from pe_dense.utils.errors import InputError


class NonFiniteLossError(InputError):
    """A loss or a gradient is NaN or infinite."""


@HOOKS.register_module(name=["NaNLossHook", "FiniteLossHook"])  # alias of earlier versions
class NaNLossHook(Hook):
    """End a run at the first NaN or infinite loss or gradient, before the optimizer step.

    Every run uses this hook. Losses are the model's outputs whose names contain 'loss'. Gradients are checked right
    before the optimizer step, so that steps skipped by a loss scaler (float16) do not count. The paths of the batch's
    images are written to ``non_finite_iter_<iteration>_rank_<rank>.txt`` in the work dir.

    Raises:
        NonFiniteLossError: naming the iteration, the loss or parameter, and that file.
    """

    priority = "NORMAL"  # before the checkpoint hook

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._batch = None
        self._losses: Mapping[str, Tensor] = {}
        self._undo: list[Callable[[], None]] = []

    def before_train(self, runner: Runner) -> None:
        """Wrap model and optimizer to check losses and gradients in each step."""
        self._runner = runner
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parse, optimizer = model.parse_losses, runner.optim_wrapper.optimizer

        def parse_losses(losses: dict) -> tuple[Tensor, dict[str, Tensor]]:
            total, self._losses = parse(losses)
            return total, self._losses

        model.parse_losses = parse_losses
        names = {parameter: name for name, parameter in model.named_parameters()}
        handle = optimizer.register_step_pre_hook(lambda *_: self._before_step(optimizer, names))
        self._undo = [lambda: delattr(model, "parse_losses"), handle.remove]

    def after_train(self, runner: Runner) -> None:
        """Restore model and optimizer."""
        while self._undo:
            self._undo.pop()()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Store the batch, for the paths of its images."""
        self._batch = data_batch

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Check the losses of steps without a weight update, too."""
        self._check_losses(outputs or {})
        self._batch = None

    def _before_step(self, optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> None:
        self._check_losses(self._losses)
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # Gradients of a sharded model are DTensors, whose module takes a second to import.
        gradients = [p.grad.to_local() if hasattr(p.grad, "to_local") else p.grad for p in parameters]
        # One number for all gradients, which takes a tenth of the time of their largest entry on a CPU.
        if torch.isfinite(nn.utils.get_total_norm(gradients)):
            return
        bad = [(p, grad) for p, grad in zip(parameters, gradients, strict=True) if not grad.isfinite().all()]
        if not bad:  # the sum of squares overflows although every entry is finite
            return
        more = f" (and of {len(bad) - 1} more of {len(parameters)} parameters)" if len(bad) > 1 else ""
        parameter, gradient = bad[0]
        kind = "NaN" if gradient.isnan().any() else "infinite"
        self._stop(f"the gradient of {names.get(parameter, 'a parameter')}{more} is {kind}")

    def _check_losses(self, losses: Mapping[str, Tensor]) -> None:
        values = {name: torch.as_tensor(value).detach() for name, value in losses.items() if "loss" in name}
        if not values or torch.stack([value.float().sum() for value in values.values()]).isfinite().all():
            return
        numbers = {name: float(value.float().sum()) for name, value in values.items()}
        bad = {name: value for name, value in numbers.items() if not math.isfinite(value)}
        terms = {name: value for name, value in bad.items() if name != "loss"} or bad  # 'loss' is the sum
        self._stop(", ".join(f"{name} is {'NaN' if math.isnan(v) else 'infinite'}" for name, v in terms.items()))

    def _stop(self, what: str) -> None:
        runner, iteration = self._runner, self._runner.iter + 1
        message = f"iteration {iteration}: {what}. The run ends before a checkpoint is written"
        paths = image_paths(self._batch)
        if paths:
            note = Path(runner.work_dir) / f"non_finite_iter_{iteration}_rank_{runner.rank}.txt"
            write_text(note, "\n".join(paths) + "\n")
            message += f"; the {len(paths)} images of the batch are listed in {note}"
        raise NonFiniteLossError(
            f"{message}. Continue from the last checkpoint with --resume, with a lower learning rate or "
            "without these images"
        )


def image_paths(batch) -> list[str]:
    """Return the paths of a batch's images, if its samples contain them."""
    if not isinstance(batch, Mapping):
        return []
    if "path" in batch:
        return [str(path) for path in batch["path"]]
    samples = batch.get("data_samples") or []
    return [str(sample.img_path) for sample in samples if getattr(sample, "img_path", None)]
