"""Resume runs: check the work dir, and the training state of the checkpoint."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from pe_dense.utils import CheckpointError
from pe_dense.utils.checkpoint import run_checkpoints
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.state_dict import check_state_dict, checkpoint_meta, require_finite

_MAX_STEPS = 1 << 40
_HUB_PARTS = ("log_scalars", "runtime_info", "resumed_keys")


def set_resume(config: Config, resume: str | None) -> None:
    """Set the checkpoint that a run resumes from. A run never overwrites checkpoints of another run.

    Args:
        config: config with ``work_dir``; ``resume`` and ``load_from`` are set in place.
        resume: 'auto' for the newest checkpoint of the work dir, a path, or None for a new run.

    Raises:
        ConfigError: if the work dir contains checkpoints and the run would not continue from them.
    """
    work_dir = Path(config.work_dir)
    present = sorted(path.name for path in work_dir.glob("*.pth"))
    if resume is None:
        if present or (work_dir / "last_checkpoint").exists():
            raise ConfigError(
                f"{work_dir} already contains a run: continue it with --resume, or start a new one with "
                "--work-dir FOLDER"
            )
    elif resume == "auto":
        config.resume, config.load_from = True, None
        if (work_dir / "last_checkpoint").exists() or run_checkpoints(work_dir):
            # The path in last_checkpoint is not used: the folder may have been moved.
            config.load_from = str(work_dir)
        elif present:
            raise ConfigError(
                f"{work_dir} contains {', '.join(present[:4])}, but no iter_<n>.pth or epoch_<n>.pth to resume: name "
                "a checkpoint with --resume PATH, or start a new run with --work-dir FOLDER"
            )
        else:
            print_log(f"Nothing to resume in {work_dir}: starting from scratch", "current", logging.WARNING)
    else:
        start = Path(resume).expanduser()
        start = start if start.is_dir() else start.parent
        if present and ("://" in resume or start.resolve() != work_dir.resolve()):
            raise ConfigError(
                f"{work_dir} contains checkpoints of a run other than that of {resume}, which would be replaced: add "
                "--work-dir FOLDER with a new folder"
            )
        config.resume, config.load_from = True, resume


def check_training_state(runner, checkpoint, source: str) -> None:
    """Check that a checkpoint contains the state of a training run, before any of it is loaded.

    Args:
        runner: runner that is about to resume.
        checkpoint: content of the file.
        source: the file's name in errors.

    Raises:
        CheckpointError: naming the entry that is missing or has the wrong type.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{source} contains a {type(checkpoint).__name__}, not the state of a training run")
    meta = checkpoint_meta(checkpoint, source)
    for key in ("epoch", "iter"):
        if type(meta.get(key)) is not int or not 0 <= meta[key] <= _MAX_STEPS:
            raise _unusable(source, f"meta.{key}", meta.get(key), "a number of steps")
    seed = meta.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 32):
        raise _unusable(source, "meta.seed", seed, "a number from 0 to 2^32 - 1")
    hub = checkpoint.get("message_hub")
    if not isinstance(hub, dict) or any(not isinstance(hub.get(part), dict) for part in _HUB_PARTS):
        raise _unusable(source, "message_hub", hub, f"a dict of {', '.join(_HUB_PARTS)}")
    for part in _HUB_PARTS:
        if any(not isinstance(key, str) for key in hub[part]):
            raise _unusable(source, f"message_hub.{part}", hub[part], "a dict with names as keys")
    for name, value in hub["resumed_keys"].items():
        if value is not True:
            raise _unusable(source, f"message_hub.resumed_keys.{name}", value, "True")
    for name, history in hub["log_scalars"].items():
        if isinstance(history, HistoryBuffer) and not hasattr(history, "_log_history"):
            raise _unusable(source, f"message_hub.log_scalars.{name}", "an empty object", "a history")
    if not isinstance(checkpoint.get("optimizer"), dict):
        raise _unusable(source, "optimizer", checkpoint.get("optimizer"), "the state of an optimizer")
    if "ema_state_dict" in checkpoint:
        require_finite(check_state_dict(checkpoint["ema_state_dict"], f"{source}: ema_state_dict"), source)
    _check_schedulers(runner.param_schedulers, checkpoint.get("param_schedulers"), source)


def check_optimizer(optim_wrapper, source: str) -> None:
    """Check that the state loaded into an optimizer is finite and matches the shapes of the parameters.

    Args:
        optim_wrapper: optimizer wrapper with the loaded state.
        source: the file's name in errors.

    Raises:
        CheckpointError: naming the entry that does not match.
    """
    if not isinstance(optim_wrapper, OptimWrapper):
        return
    optimizer = optim_wrapper.optimizer
    # Loading a state adds `differentiable` to an optimizer's defaults, even if its groups do not have it.
    optional = ("initial_lr", "differentiable")
    for group in optimizer.param_groups:
        for key, usual in {**optimizer.defaults, "initial_lr": 0.0}.items():
            if key not in group and key not in optional:
                raise _unusable(source, f"optimizer.param_groups.{key}", "missing", "as this optimizer has it")
            if not _is_option(group.get(key, usual), usual):
                raise _unusable(source, f"optimizer.param_groups.{key}", group[key], f"a value such as {usual}")
    names = None
    for parameter, state in optimizer.state.items():
        names = names or set(state)
        if set(state) != names:
            raise _unusable(source, "optimizer.state", "with other entries for some parameters", "complete")
        for key, value in state.items():
            if not isinstance(value, Tensor):
                if value is not None and not _is_option(value, 0.0):
                    raise _unusable(source, f"optimizer.state.{key}", value, "a tensor or a finite number")
                continue
            if value.dim() and value.shape != parameter.shape:
                raise _unusable(source, f"optimizer.state.{key}", f"a tensor {tuple(value.shape)}", parameter.shape)
            if value.is_complex() or (value.is_floating_point() and not bool(torch.isfinite(value).all())):
                raise _unusable(source, f"optimizer.state.{key}", "a tensor with NaN or infinite values", "finite")


def _is_option(value, usual) -> bool:
    """Return whether an option of an optimizer has the type of its default and is finite."""
    if usual is None or isinstance(usual, bool):
        return value is None or isinstance(value, bool)
    if isinstance(usual, tuple | list):
        return isinstance(value, tuple | list) and len(value) == len(usual) and all(map(_is_option, value, usual))
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        return False
    return math.isfinite(value) if not isinstance(value, Tensor) else value.numel() == 1 and bool(value.isfinite())


def _check_schedulers(schedulers, states, source: str) -> None:
    """Compare the states of parameter schedulers with those of the run."""
    if not isinstance(schedulers, list) or states is None:
        return
    if not isinstance(states, list) or len(states) != len(schedulers):
        count = len(states) if isinstance(states, list) else f"a {type(states).__name__}"
        raise CheckpointError(f"{source} cannot be resumed: param_schedulers is {count}, not {len(schedulers)} states")
    for number, (scheduler, state) in enumerate(zip(schedulers, states, strict=True)):
        if isinstance(scheduler, dict):  # a config that has not been built yet
            continue
        own = scheduler.state_dict()
        name = f"param_schedulers[{number}]"
        if not isinstance(state, dict) or set(state) != set(own):
            raise _unusable(source, name, type(state).__name__, f"the state of a {type(scheduler).__name__}")
        for key, value in own.items():
            same = isinstance(state[key], type(value)) or value is None or state[key] is None
            if not same and not (isinstance(value, int | float) and isinstance(state[key], int | float)):
                raise _unusable(source, f"{name}.{key}", state[key], f"a {type(value).__name__}")
            if isinstance(state[key], float) and not math.isfinite(state[key]):
                raise _unusable(source, f"{name}.{key}", state[key], "a finite number")


def _unusable(source: str, key: str, value, wanted) -> CheckpointError:
    text = str(value) if isinstance(value, int | float | str | type(None)) else f"a {type(value).__name__}"
    text, key = (" ".join(part[:200].split()) for part in (text, key))
    return CheckpointError(f"{source} cannot be resumed: its {key} is {text}, not {wanted}")


# The position of a scheduler in its schedule, as opposed to its settings.
_PROGRESS = ("last_step", "_global_step", "_last_value", "verbose")


class ConfiguredSchedule:
    """Settings of optimizer and schedulers in the config, recorded before a checkpoint replaces them.

    MMEngine loads both from the checkpoint, so that a changed learning rate or schedule has no effect on a resumed run.

    Args:
        runner: runner with optimizer and schedulers built, before it resumes.
    """

    def __init__(self, runner: Runner):
        self._runner = runner
        self._groups, self._schedulers = [], []
        if isinstance(runner.optim_wrapper, OptimWrapper) and isinstance(runner.param_schedulers or [], list):
            self._groups = [_settings(group) for group in runner.optim_wrapper.optimizer.param_groups]
            self._schedulers = [dict(scheduler.state_dict()) for scheduler in runner.param_schedulers or []]

    def changes(self) -> list[str]:
        """Return the names of the settings in which the loaded state differs from the config. Call it after loading."""
        if not self._groups:
            return []
        changed = set()
        for mine, group in zip(self._groups, self._runner.optim_wrapper.optimizer.param_groups, strict=True):
            changed |= {
                name.removeprefix("initial_")
                for name, value in mine.items()
                if f"initial_{name}" not in mine and not _same(group.get(name), value)
            }
        for mine, scheduler in zip(self._schedulers, self._runner.param_schedulers or [], strict=True):
            loaded = scheduler.state_dict()
            names = [name for name in mine if name not in _PROGRESS and not _same(loaded.get(name), mine[name])]
            changed |= {f"{type(scheduler).__name__}.{name}" for name in names if name != "base_values"}
        return sorted(changed)

    def follow(self) -> None:
        """Set optimizer and schedulers to their state in an uninterrupted run of this config.

        Raises:
            ConfigError: if a scheduler's steps depend on past metrics.
        """
        runner = self._runner
        schedulers = runner.param_schedulers or []
        if unknown := [type(s).__name__ for s in schedulers if getattr(s, "need_val_args", False)]:
            raise ConfigError(
                f"a resumed run cannot use changed settings of {unknown[0]}, whose steps depend on past metrics: "
                f"leave {', '.join(self.changes())} as they were, or start a new run with load_from"
            )
        for mine, group in zip(self._groups, runner.optim_wrapper.optimizer.param_groups, strict=True):
            group.update(mine)
        for mine, scheduler in zip(self._schedulers, schedulers, strict=True):
            scheduler.load_state_dict(mine)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer does not step in between
            for _ in range(runner.iter):
                for scheduler in schedulers:
                    if not scheduler.by_epoch:
                        scheduler.step()
            for _ in range(runner.epoch):
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()


def check_progress(runner: Runner, filename: str) -> None:
    """Check that a resumed run has iterations left, or log that it is complete.

    Raises:
        ConfigError: if the checkpoint is from after the end of the run.
    """
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        unit, name, done, last = "epoch", "max_epochs", loop.epoch, loop.max_epochs
    else:
        unit, name, done, last = "iteration", "max_iters", loop.iter, loop.max_iters
    if done > last:
        raise ConfigError(
            f"{filename} is from {unit} {done}, after the end of this run: "
            f"train_cfg.{name}={last}; set it above {done} to go on"
        )
    if done == last:
        runner.logger.info(f"{filename} is from the end of this run: nothing is left to train")


def _settings(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}


def _same(one, other) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
