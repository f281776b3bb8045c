"""Distillation losses between tokens of a student and of its teachers.

In shapes B is the number of images, N the number of tokens of an image and C the number of channels; losses on pairwise
similarities allow different C for student and teacher. All losses are computed in float32, also under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def locality_loss(student: Tensor, sam: Tensor, temperature: float = 20.0) -> Tensor:
    """Locality loss: mean squared error between pairwise token similarities of the student and sharpened ones of SAM.

    With S and T the N x N cosine similarities of student and SAM tokens, this is the mean over all pairs of
    ``(S - exp(temperature * (T - 1))) ** 2``.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2, L_loc, with a temperature of 20.

    Args:
        student: (B, N, C).
        sam: (B, N, D), mask logits as features.
        temperature: sharpening of the similarities of SAM: higher values reduce imperfect similarities faster.

    Returns:
        a non-negative scalar.

    Raises:
        ValueError: if the numbers of images or tokens differ.
    """
    with _float32(student):
        wanted = torch.exp(temperature * (similarities(sam) - 1))
        return _same_pairs(student, sam, wanted)


def pairwise_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error between pairwise token cosine similarities of student and teacher.

    Source: distillation of the small Spatial towers (the README of the Perception Encoder mentions pairwise token
    similarity without a formula).

    Args:
        student: (B, N, C).
        teacher: (B, N, D).

    Returns:
        a non-negative scalar.

    Raises:
        ValueError: if the numbers of images or tokens differ.
    """
    with _float32(student):
        return _same_pairs(student, teacher, similarities(teacher))


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine similarity of corresponding student and teacher tokens; feature distillation minimizes its negative.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2, L_core. The paper prints the loss without the minus
    sign, but states that the similarity is maximized.

    Args:
        student, teacher: (B, N, C).

    Returns:
        a scalar in [-1, 1]; 1 if all directions are equal.

    Raises:
        ValueError: if the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"shapes of student and teacher tokens differ: {tuple(student.shape)} vs {tuple(teacher.shape)}"
        )
    with _float32(student):
        return F.cosine_similarity(student.float(), teacher.float(), dim=-1, eps=1e-12).mean()


def target_cosine(student: Tensor, targets: Tensor) -> Tensor:
    """Mean cosine similarity of student tokens and target directions, weighted by the lengths of the targets.

    Args:
        student, targets: (B, N, C); a target of length 0 is ignored.

    Returns:
        a scalar in [-1, 1]; 0 if all targets are 0.

    Raises:
        ValueError: if the shapes differ.
    """
    if student.shape != targets.shape:
        raise ValueError(f"shapes of tokens and targets differ: {tuple(student.shape)} vs {tuple(targets.shape)}")
    with _float32(student):
        products = (F.normalize(student.float(), dim=-1) * targets.float()).sum(-1)
        return products.sum() / targets.float().norm(dim=-1).sum().clamp_min(1e-12)


def similarities(tokens: Tensor) -> Tensor:
    """Compute pairwise cosine similarities (B, N, N) of the tokens (B, N, C) of each image."""
    directions = F.normalize(tokens.float(), dim=-1)
    return directions @ directions.transpose(1, 2)


@torch.no_grad()
def effective_rank(tokens: Tensor, count: int = 256) -> Tensor:
    """Compute the effective rank of tokens: exp of the entropy of their normalized singular values.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007), as used for features in RankMe (arXiv 2210.02885).

    Args:
        tokens: (B, N, C).
        count: maximum number of tokens to use, evenly spaced; it is an upper bound of the rank.

    Returns:
        a scalar between 1 and min(count, B N, C); NaN if the tokens contain NaN or infinite values.
    """
    rows = tokens.flatten(0, 1)
    rows = rows[:: -(-len(rows) // count)].float()
    if not rows.isfinite().all():
        return rows.new_tensor(torch.nan)
    values = torch.linalg.svdvals(rows)
    shares = values / values.sum().clamp_min(1e-30)
    return torch.special.entr(shares).sum().exp()


def _same_pairs(student: Tensor, teacher: Tensor, wanted: Tensor) -> Tensor:
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(f"student and teacher token counts differ: {tuple(student.shape)} vs {tuple(teacher.shape)}")
    return F.mse_loss(similarities(student), wanted)


def _float32(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)
