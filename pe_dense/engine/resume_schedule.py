"""Let a resumed run follow its config's learning rates and schedule where they differ from the checkpoint's."""

from __future__ import annotations

import warnings

from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from pe_dense.utils.errors import ConfigError

# Where a scheduler is, in contrast to what it does.
_PROGRESS = ("last_step", "_global_step", "_last_value", "verbose")


class ConfiguredSchedule:
    """The settings of optimizer and schedulers by the config, taken before a checkpoint's take their place.

    MMEngine loads both from the checkpoint, so that a changed learning rate or schedule has no effect on a resumed run.

    Args:
        runner: with built optimizer and schedulers, before it resumes.
    """

    def __init__(self, runner: Runner):
        self._runner = runner
        self._groups, self._schedulers = [], []
        if isinstance(runner.optim_wrapper, OptimWrapper) and isinstance(runner.param_schedulers or [], list):
            self._groups = [_settings(group) for group in runner.optim_wrapper.optimizer.param_groups]
            self._schedulers = [dict(scheduler.state_dict()) for scheduler in runner.param_schedulers or []]

    def changes(self) -> list[str]:
        """Names of the settings in which the loaded state differs from the config. Call it after loading."""
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
        """Set optimizer and schedulers to where an uninterrupted run of this config would be.

        Raises:
            ConfigError: for a scheduler whose steps depend on metrics of the past.
        """
        runner = self._runner
        schedulers = runner.param_schedulers or []
        if unknown := [type(s).__name__ for s in schedulers if getattr(s, "need_val_args", False)]:
            raise ConfigError(
                f"a resumed run can't follow other settings of {unknown[0]}, whose steps depend on past metrics: "
                f"leave {', '.join(self.changes())} as they were, or start a new run with load_from"
            )
        for mine, group in zip(self._groups, runner.optim_wrapper.optimizer.param_groups, strict=True):
            group.update(mine)
        for mine, scheduler in zip(self._schedulers, schedulers, strict=True):
            scheduler.load_state_dict(mine)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer makes no steps meanwhile
            for _ in range(runner.iter):
                for scheduler in schedulers:
                    if not scheduler.by_epoch:
                        scheduler.step()
            for _ in range(runner.epoch):
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()


def check_progress(runner: Runner, filename: str) -> None:
    """Make sure that a resumed run has something left to do, or say that it has not.

    Raises:
        ConfigError: if the checkpoint is from beyond the end of the run.
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
