"""Losses whose graph is gone before the backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def settle(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Compute a loss's gradients now and keep nothing else of what led to it.

    The result is worth the loss, and its backward pass hands the gradients out. So the losses of many heads can be
    summed up for one ordinary backward pass (with whatever wraps model and optimizer), while the activations of one
    head at a time are in memory.

    Args:
        loss: a scalar.
        parameters: what it depends on; gradients for others are lost.

    Returns:
        a scalar.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return _Settled.apply(loss.detach(), gradients, *parameters)


class _Settled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss: Tensor, gradients: Sequence[Tensor | None], *_parameters: nn.Parameter) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        gradients = [None if gradient is None else upstream * gradient for gradient in ctx.gradients]
        return None, None, *gradients
