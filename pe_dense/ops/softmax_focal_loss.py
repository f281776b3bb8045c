"""Focal loss on exclusive classes (Lin et al., Focal Loss, ICCV 2017, equation 5, on softmax probabilities)."""

import torch
from torch import Tensor

from pe_dense.utils.dtype import widened


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
    output.copy_(-alpha * (1 - p) ** gamma * log_p * _factors(target, weight))


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
    by_log_p = alpha * rest**gamma * (gamma * p * slope - 1) * _factors(target, weight)
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


def _factors(target: Tensor, weight: Tensor) -> Tensor:
    """Factors (N,) of the examples: their class weights, 0 where they are ignored."""
    counts = target >= 0
    return weight[target.clamp(min=0)] * counts if weight.numel() else counts
