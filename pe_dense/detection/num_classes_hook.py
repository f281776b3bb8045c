"""Check that the classes of model, data sets and checkpoint match before a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmdet.models.dense_heads import RPNHead
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from pe_dense.datasets.annotations import compare_with_checkpoint, some
from pe_dense.registry import HOOKS
from pe_dense.utils.errors import ConfigError, InputError


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Raise an error if the classes of model, data sets and checkpoint differ.

    The number of classes in each part of the model with ``num_classes`` (except proposal heads, which separate objects
    from background only) must be the number of ``classes`` in each data set's ``metainfo``; data sets must have the
    same classes; and a checkpoint that is tested or resumed must have been trained on them. Fine-tuning from a
    checkpoint with other classes is allowed and logged.

    Raises:
        ConfigError: if model and data sets differ, before the run.
        InputError: if the checkpoint's classes differ, before its weights are loaded.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare the model with the data sets of the loops that will run."""
        classes = _data_classes(runner)
        for name, names in classes.items():
            for part, count in _class_counts(runner.model):
                if count != len(names):
                    raise ConfigError(
                        f"the model's {part} has {count} classes, the {name} data set {len(names)}: {some(names)}. Set "
                        "num_classes wherever the model has it; --data FOLDER does, for data of your own"
                    )
        if len({tuple(names) for names in classes.values()}) > 1:
            sides = "; ".join(f"{name} has {some(names)}" for name, names in classes.items())
            raise ConfigError(f"the data sets' classes differ: {sides}")

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the classes that a checkpoint was trained on with those of the data sets."""
        source = runner._load_from or "the checkpoint"
        for name, names in _data_classes(runner).items():
            try:
                compare_with_checkpoint(checkpoint, names, source, f"the {name} data set")
            except InputError as difference:
                if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
                    print_log(f"Fine-tuning on other classes: {difference}", "current", logging.WARNING)
                    return
                raise


def _data_classes(runner: Runner) -> dict[str, Sequence[str]]:
    """Return the classes of the data sets of the loops that will run, by 'train', 'val' and 'test'."""
    loops = dict(train=runner._train_loop, val=runner._val_loop, test=runner._test_loop)
    data = {name: loop.dataloader.dataset for name, loop in loops.items() if isinstance(loop, BaseLoop)}
    return {name: dataset.metainfo["classes"] for name, dataset in data.items() if "classes" in dataset.metainfo}


def _class_counts(model) -> list[tuple[str, int]]:
    """Return the name and number of classes of each module with ``num_classes``."""
    parts = [part for part in model.modules() if not isinstance(part, RPNHead)]
    return [
        (type(part).__name__, part.num_classes) for part in parts if isinstance(getattr(part, "num_classes", None), int)
    ]
