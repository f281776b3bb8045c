"""Training schedules of mask transformers: mask annealing, layer-wise decay, warm-up of the head before the tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner
from torch import nn

from pe_dense.backbones import Backbone
from pe_dense.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from pe_dense.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from pe_dense.segmentation.mask_head import MaskTransformerHead
from pe_dense.utils.errors import ConfigError, InputError


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Decrease the share of masked queries of each block from 1 to 0 in its interval of the training.

    The share is ``(1 - progress) ** power`` within the interval, 1 before and 0 after it. After the last interval the
    model needs no masks, and only its last prediction.

    Source: EoMT (arXiv 2503.19108, section 3.3) and its code.

    Args:
        intervals: (start, end) of each block with queries, in iterations.
        power: exponent.

    Raises:
        ConfigError: if an interval is empty, or, before training, if the intervals are not as many as the blocks or
            the last one ends after the run.
    """

    def __init__(self, intervals: Sequence[tuple[int, int]], power: float = 0.9):
        for start, end in intervals:
            if not 0 <= start < end:
                raise ConfigError(
                    f"MaskAnnealingHook: interval ({start}, {end}) must start at 0 or later and end later"
                )
        self.intervals = [tuple(interval) for interval in intervals]
        self.power = power

    def shares(self, iteration: int) -> list[float]:
        """Return the share of masked queries of each block after a number of iterations."""
        progress = [(iteration - start) / (end - start) for start, end in self.intervals]
        return [(1.0 - min(max(part, 0.0), 1.0)) ** self.power for part in progress]

    def before_train(self, runner: Runner) -> None:
        """Check the intervals and set the shares of the first iteration."""
        for head in _heads(runner.model):
            if head.num_blocks != len(self.intervals):
                raise ConfigError(
                    f"MaskAnnealingHook has {len(self.intervals)} intervals for {head.num_blocks} blocks with queries: "
                    "give one (start, end) for each"
                )
        last = max((end for _, end in self.intervals), default=0)
        if last > runner.max_iters:
            raise ConfigError(
                f"MaskAnnealingHook: the last interval ends at iteration {last}, the run at {runner.max_iters}: scale "
                "the intervals to the run, because a trained model predicts without masks"
            )
        self._set(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Set the shares of the next iteration."""
        self._set(runner, runner.iter + 1)

    def _set(self, runner: Runner, iteration: int) -> None:
        shares = torch.tensor(self.shares(iteration))
        for head in _heads(runner.model):
            head.attn_mask_probs.copy_(shares)


def _heads(model: nn.Module) -> list[MaskTransformerHead]:
    return [module for module in model.modules() if isinstance(module, MaskTransformerHead)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class EoMTOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Layer-wise learning-rate decay as in EoMT's code: the last block has the full rate, the embedding the first's.

    Block i of L has the rate ``decay_rate ** (L - 1 - i)``, the layers after the blocks and the head the full one.

    Args:
        optim_wrapper_cfg: see :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: ``dict(decay_rate=..., full_rate_blocks=...)``; the latter is the number of last blocks without
            decay, 0 by default. EoMT uses the blocks with queries on DINOv3 and 0 on DINOv2.

    Raises:
        ValueError: for other settings or values out of range.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        settings = dict(paramwise_cfg or {})
        self.full_rate_blocks = settings.pop("full_rate_blocks", 0)
        if self.full_rate_blocks < 0:
            raise InputError(f"full_rate_blocks {self.full_rate_blocks} is negative")
        super().__init__(optim_wrapper_cfg, settings)

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict]:
        """Group trainable parameters by layer; ``in_tower`` marks the groups of the embedding and the blocks."""
        groups = super().parameter_groups(model, lr)
        (blocks,) = (module.num_layers for module in model.modules() if isinstance(module, Backbone))
        for group in groups:
            above = blocks - max(group["layer"], 1)  # blocks above this one
            group["in_tower"] = above >= 0
            group["lr"] = lr * self.decay_rate ** (above if above >= self.full_rate_blocks else 0)
        return groups


@PARAM_SCHEDULERS.register_module()
class TwoStageWarmupPolyLR(_ParamScheduler):
    """Linear warm-up of the head, then of the tower, each followed by a polynomial decay to 0.

    The tower's learning rate is 0 while the head warms up. Groups of the tower are those that
    :class:`EoMTOptimWrapperConstructor` marks.

    Source: EoMT's code.

    Args:
        optimizer: optimizer or its wrapper.
        warmup: iterations of the warm-up of the head and of the tower.
        power: exponent of the decay.
        begin, end, last_step, by_epoch, verbose: see MMEngine's schedulers.

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(
        self,
        optimizer,
        warmup: tuple[int, int],
        power: float = 0.9,
        begin: int = 0,
        end: int = 1_000_000_000,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ):
        if min(warmup) < 0 or sum(warmup) >= end - begin:
            raise InputError(f"a warm-up of {tuple(warmup)} does not fit into {end - begin} iterations")
        self.warmup, self.power = tuple(warmup), power
        super().__init__(optimizer, "lr", begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    def _get_value(self) -> list[float]:
        factors = {in_tower: self._factor(in_tower) for in_tower in (False, True)}
        groups = zip(self.base_values, self.optimizer.param_groups, strict=True)
        return [base * factors[group.get("in_tower", False)] for base, group in groups]

    def _factor(self, in_tower: bool) -> float:
        start, length = (self.warmup[0], self.warmup[1]) if in_tower else (0, self.warmup[0])
        step = self.last_step - start
        if step < length:
            return max(step, 0) / length
        remaining = 1 - (step - length) / (self.end - self.begin - start - length)
        return max(remaining, 0.0) ** self.power
