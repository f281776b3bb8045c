"""Focal loss on independent classes (Lin et al., Focal Loss, ICCV 2017, equation 5)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.dtype import widened


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fills ``output`` with ``-alpha (1 - p)^gamma log p``, ``p = sigmoid(input)``, at the target class, and with
    ``-(1 - alpha) p^gamma log(1 - p)`` at the others.

    Logarithms come from the logits, so unlike mmcv's kernel this stays exact where p rounds to 0 or 1.

    Args:
        input: (N, C), logits.
        target: (N,) int64; C means background, and so does -1: the example is a negative for every class.
        weight: (C,), factors on all losses of an example by its target class, 1 for background; (0,) for none.
        output: (N, C), filled in place.
        gamma, alpha: focus on hard examples, weight of positives.

    Raises:
        ValueError: for targets above C.
    """
    _check(target, input.shape[1])
    (logits,) = widened(input)
    log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = -alpha * (gamma * log_rest).exp() * log_p
    negative = -(1 - alpha) * (gamma * log_p).exp() * log_rest
    output.copy_(positive.where(_is_target(target, input), negative) * _factors(target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fills ``grad_input``, (N, C), with the derivatives of each loss by its logit.

    Args:
        input, target, weight, gamma, alpha: as in :func:`sigmoid_focal_loss_forward`.
        grad_input: (N, C), filled in place.

    Raises:
        ValueError: for targets above C.
    """
    _check(target, input.shape[1])
    (logits,) = widened(input)
    log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)
    p, rest = log_p.exp(), log_rest.exp()
    positive = -alpha * (gamma * log_rest).exp() * (rest - gamma * p * log_p)
    negative = -(1 - alpha) * (gamma * log_p).exp() * (gamma * rest * log_rest - p)
    grad_input.copy_(positive.where(_is_target(target, input), negative) * _factors(target, weight))


def _check(target: Tensor, classes: int) -> None:
    if target.numel() and target.max() > classes:
        raise ValueError(f"targets must be at most {classes}, the background of {classes} classes: {target.max()}")


def _is_target(target: Tensor, input: Tensor) -> Tensor:
    """Where (N, C) the class is the target of the example."""
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def _factors(target: Tensor, weight: Tensor) -> Tensor:
    """Factors (N, 1) of the examples, or (1, 1) without weights."""
    if not weight.numel():
        return weight.new_ones(1, 1)
    is_object = (target >= 0) & (target < len(weight))
    factors = weight[target.where(is_object, torch.zeros_like(target))]
    return factors.where(is_object, torch.ones_like(factors))[:, None]
