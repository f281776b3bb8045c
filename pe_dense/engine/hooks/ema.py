"""Exponential moving average (EMA) of the weights that does not copy frozen parameters."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from mmengine.hooks import EMAHook as _EMAHook
from mmengine.model import ExponentialMovingAverage as _ExponentialMovingAverage
from mmengine.runner import Runner
from torch import nn

from pe_dense.registry import HOOKS, MODELS


@HOOKS.register_module()
class EMAHook(_EMAHook):
    """MMEngine's ``EMAHook`` with this project's :class:`ExponentialMovingAverage`.

    Attributes:
        swapped: whether the model currently has the averaged weights, as in validation.
    """

    swapped = False

    def __init__(self, ema_type: str = "ExponentialMovingAverage", **options):
        if ema_type == "ExponentialMovingAverage":
            ema_type = "pe_dense.ExponentialMovingAverage"
        super().__init__(ema_type, **options)

    def restore(self, runner: Runner) -> None:
        """Swap the model's own weights back in after an interrupted validation."""
        if self.swapped:
            self._swap_ema_parameters()

    def _swap_ema_parameters(self) -> None:
        super()._swap_ema_parameters()
        self.swapped = not self.swapped


@MODELS.register_module()
class ExponentialMovingAverage(_ExponentialMovingAverage):
    """MMEngine's ``ExponentialMovingAverage`` that shares frozen parameters with the model instead of copying them.

    These are all parameters without gradients, and modules that a model excludes from its ``state_dict``, such as the
    frozen backbone of a probe and the teachers of a student (3.7 GB for PE-Core-G14 in bfloat16).
    """

    def __init__(self, model: nn.Module, *args, **options):
        super().__init__(_WithoutFrozen(model), *args, **options)


class _WithoutFrozen:
    """Wrapper whose deep copy is a copy of the model without the frozen parts."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __deepcopy__(self, memo: dict) -> nn.Module:
        shared = [*hidden_modules(self.model), *(p for p in self.model.parameters() if not p.requires_grad)]
        memo.update({id(item): item for item in shared})
        return deepcopy(self.model, memo)


def hidden_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Return modules in attributes of a model, also in lists, tuples and dicts, that are not its submodules."""
    known = {id(module) for module in model.modules()}

    def search(value) -> Iterator[nn.Module]:
        if isinstance(value, nn.Module):
            if id(value) not in known:
                known.add(id(value))
                yield value
        elif isinstance(value, dict):
            for item in value.values():
                yield from search(item)
        elif isinstance(value, list | tuple | set):
            for item in value:
                yield from search(item)

    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_modules", "_parameters", "_buffers") and not isinstance(value, torch.Tensor):
                yield from search(value)
