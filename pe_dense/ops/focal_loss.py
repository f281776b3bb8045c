"""Focal losses of ``mmcv.ops``: sigmoid and softmax, forward and backward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.ops.roi_align import widened


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the sigmoid focal loss of each class into ``output``.

    With ``p = sigmoid(input)`` it is ``-alpha (1 - p)^gamma log p`` for the target class and
    ``-(1 - alpha) p^gamma log(1 - p)`` for the others. Logarithms are computed from the logits, so unlike mmcv's kernel
    the loss is exact if p rounds to 0 or 1.

    Args:
        input: (N, C), logits.
        target: (N,) int64; C or -1 is background: the example is a negative for every class.
        weight: (C,), weight of all losses of an example by its target class, 1 for background; (0,) for no weights.
        output: (N, C), written in place.
        gamma, alpha: focusing parameter and weight of positives.

    Raises:
        ValueError: if a target is above C.
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
    """Compute the gradient of :func:`sigmoid_focal_loss_forward` with respect to the logits into ``grad_input``.

    Args:
        input, target, weight, gamma, alpha: see :func:`sigmoid_focal_loss_forward`.
        grad_input: (N, C), written in place.

    Raises:
        ValueError: if a target is above C.
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
    """Return a mask (N, C) of the target class of each example."""
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def _factors(target: Tensor, weight: Tensor) -> Tensor:
    """Return weights (N, 1) of the examples, or (1, 1) without class weights."""
    if not weight.numel():
        return weight.new_ones(1, 1)
    is_object = (target >= 0) & (target < len(weight))
    factors = weight[target.where(is_object, torch.zeros_like(target))]
    return factors.where(is_object, torch.ones_like(factors))[:, None]


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the softmax focal loss ``-alpha (1 - p)^gamma log p`` into ``output``, p the target class probability.

    Args:
        input: (N, C), probabilities; mmcv computes the softmax before the call.
        target: (N,) int64; examples with negative targets are ignored and have loss 0.
        weight: (C,), weight of the loss by target class; (0,) for no weights.
        output: (N,), written in place.
        gamma, alpha: focusing parameter and weight of the loss.

    Raises:
        ValueError: if a target is C or more.
    """
    p, log_p = _of_target(input, target)
    output.copy_(-alpha * (1 - p) ** gamma * log_p * _softmax_factors(target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the gradient of :func:`softmax_focal_loss_forward` with respect to the logits into ``grad_input``.

    Args:
        input, target, weight, gamma, alpha: see :func:`softmax_focal_loss_forward`.
        buff: (N,), written in place with the derivative of the loss with respect to log p.
        grad_input: (N, C), written in place.

    Raises:
        ValueError: if a target is C or more.
    """
    p, log_p = _of_target(input, target)
    rest = 1 - p
    # log p / (1 - p) tends to -1 as p tends to 1; this avoids negative powers of (1 - p), which overflow for gamma < 1.
    slope = (log_p / rest).where(rest > 0, torch.full_like(rest, -1))
    by_log_p = alpha * rest**gamma * (gamma * p * slope - 1) * _softmax_factors(target, weight)
    (probabilities,) = widened(input)
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    buff.copy_(by_log_p)
    grad_input.copy_(by_log_p[:, None] * (is_target.to(probabilities.dtype) - probabilities))


def _of_target(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the target class probability (N,) and its logarithm; those of class 0 for ignored examples."""
    if target.numel() and target.max() >= input.shape[1]:
        raise ValueError(f"targets must be below the number of classes, {input.shape[1]}: {target.max()}")
    (probabilities,) = widened(input)
    p = probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p, p.clamp(min=torch.finfo(p.dtype).tiny).log()


def _softmax_factors(target: Tensor, weight: Tensor) -> Tensor:
    """Return weights (N,) of the examples: their class weights, 0 for ignored examples."""
    counts = target >= 0
    return weight[target.clamp(min=0)] * counts if weight.numel() else counts
