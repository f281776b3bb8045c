"""Training on CPUs: bfloat16 where the CPU has instructions for it, and fused optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn


def bfloat16_instructions() -> str | None:
    """Return the CPU's instructions for bfloat16 matrix products, 'AMX' or 'AVX512-BF16'; None if it has neither.

    PyTorch also runs bfloat16 on other CPUs, where it emulates it, more slowly than float32.
    """
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


class CPUAmpOptimWrapper(OptimWrapper):
    """MMEngine's ``AmpOptimWrapper`` for CPUs, which that class does not support: training under bfloat16 autocast.

    Losses are not scaled, because bfloat16 has float32's range. Parameters, gradients and the optimizer's state are in
    float32, so that checkpoints are those of any other run.

    Args:
        dtype, loss_scale: settings of ``AmpOptimWrapper``, without effect.
        options: see MMEngine's ``OptimWrapper``.
    """

    def __init__(self, dtype: str | None = None, loss_scale: object = None, **options):
        super().__init__(**options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of a training step under autocast."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def fused(optimizer: dict) -> dict:
    """Return an optimizer's config with PyTorch's fused step, if it has one and no other is chosen.

    The step of a detector's heads, 60 small tensors, takes an eighth of the time on a CPU, where PyTorch's default is a
    loop.
    """
    chosen = {"fused", "foreach", "capturable", "differentiable"} & set(optimizer)
    if optimizer.get("type") not in ("AdamW", "Adam", "SGD") or chosen:
        return optimizer
    return dict(optimizer, fused=True)
