"""Comparing a model's classes with the data's before work begins."""

from __future__ import annotations

from mmdet.models.dense_heads import RPNHead
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from pe_dense.datasets.annotations import some
from pe_dense.registry import HOOKS
from pe_dense.utils.errors import ConfigError


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse a run whose model has another number of classes than its data, or whose data sets differ in theirs.

    What counts is each part of the model with a number ``num_classes``, but for proposal heads, which tell objects
    from background only, and the ``classes`` in each data set's ``metainfo``.

    Raises:
        ConfigError: before a run, with both sides.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare the model with the data sets of the loops that are going to run."""
        loops = dict(train=runner._train_loop, val=runner._val_loop, test=runner._test_loop)
        data = {name: loop.dataloader.dataset for name, loop in loops.items() if isinstance(loop, BaseLoop)}
        classes = {name: dataset.metainfo["classes"] for name, dataset in data.items() if "classes" in dataset.metainfo}
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


def _class_counts(model) -> list[tuple[str, int]]:
    """Names and numbers of classes of a model's parts."""
    parts = [part for part in model.modules() if not isinstance(part, RPNHead)]
    return [
        (type(part).__name__, part.num_classes) for part in parts if isinstance(getattr(part, "num_classes", None), int)
    ]
