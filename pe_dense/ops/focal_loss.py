"""Focal losses of ``mmcv.ops``: sigmoid and softmax, forward and backward."""

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


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fills ``output`` with ``-alpha (1 - p)^gamma log p``, p the probability of the target class.

    Args:
        input: (N, C), probabilities: mmcv takes the softmax itself.
        target: (N,) int64; examples with negative targets are ignored, their loss is 0.
        weight: (C,), factors on the loss by target class; (0,) for none.
        output: (N,), filled in place.
        gamma, alpha: focus on hard examples, weight of the whole loss.

    Raises:
        ValueError: for targets of C and more.
    """
    p, log_p = _of_target(input, target)
    output.copy_(-alpha * (1 - p) ** gamma * log_p * _softmax_factors(target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fills ``grad_input`` with the derivatives of each loss by the logits behind its probabilities.

    Args:
        input, target, weight, gamma, alpha: as in :func:`softmax_focal_loss_forward`.
        buff: (N,), filled in place with the loss's derivative by log p: the rest is that of log softmax.
        grad_input: (N, C), filled in place.

    Raises:
        ValueError: for targets of C and more.
    """
    p, log_p = _of_target(input, target)
    rest = 1 - p
    # log p / (1 - p), which tends to -1 as p tends to 1: powers below 1 of (1 - p) do not blow up then.
    slope = (log_p / rest).where(rest > 0, torch.full_like(rest, -1))
    by_log_p = alpha * rest**gamma * (gamma * p * slope - 1) * _softmax_factors(target, weight)
    (probabilities,) = widened(input)
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    buff.copy_(by_log_p)
    grad_input.copy_(by_log_p[:, None] * (is_target.to(probabilities.dtype) - probabilities))


def _of_target(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability (N,) of each target class and its logarithm; that of class 0 for ignored examples."""
    if target.numel() and target.max() >= input.shape[1]:
        raise ValueError(f"targets must be below the number of classes, {input.shape[1]}: {target.max()}")
    (probabilities,) = widened(input)
    p = probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p, p.clamp(min=torch.finfo(p.dtype).tiny).log()


def _softmax_factors(target: Tensor, weight: Tensor) -> Tensor:
    """Factors (N,) of the examples: their class weights, 0 where they are ignored."""
    counts = target >= 0
    return weight[target.clamp(min=0)] * counts if weight.numel() else counts
