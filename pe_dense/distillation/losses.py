"""Losses between tokens of a student and of its teachers.

Shapes: B images, N tokens of an image, C channels (student and teacher may differ in C where tokens are only compared
with each other). All is computed in float32, whatever the precision around.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def locality_loss(student: Tensor, sam: Tensor, temperature: float = 20.0) -> Tensor:
    """Mean squared difference of the tokens' similarities to each other, those of SAM sharpened.

    With S and T the N x N cosine similarities of the student's and of SAM's tokens: the mean over all pairs of
    ``(S - exp(temperature * (T - 1))) ** 2``.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2, L_loc, with a temperature of 20.

    Args:
        student: (B, N, C).
        sam: (B, N, D), mask logits as features.
        temperature: how fast what is not quite alike counts as unlike.

    Returns:
        a scalar, 0 or more.

    Raises:
        ValueError: for other numbers of images or tokens.
    """
    with _float32(student):
        wanted = torch.exp(temperature * (similarities(sam) - 1))
        return _same_pairs(student, sam, wanted)


def pairwise_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the tokens' cosine similarities to each other.

    Source: how the small Spatial towers were distilled (Perception Encoder's README names pairwise token similarity
    and gives no formula).

    Args:
        student: (B, N, C).
        teacher: (B, N, D).

    Returns:
        a scalar, 0 or more.

    Raises:
        ValueError: for other numbers of images or tokens.
    """
    with _float32(student):
        return _same_pairs(student, teacher, similarities(teacher))


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine similarity of each token and its teacher's; minus it is the loss of feature distillation.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2, L_core. The paper prints the loss without the minus,
    but says that the similarity is maximized.

    Args:
        student, teacher: (B, N, C).

    Returns:
        a scalar in [-1, 1]; at 1 all directions are the same.

    Raises:
        ValueError: for shapes that differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"Tokens of the student {tuple(student.shape)} and of the teacher {tuple(teacher.shape)} differ"
        )
    with _float32(student):
        return F.cosine_similarity(student.float(), teacher.float(), dim=-1, eps=1e-12).mean()


def similarities(tokens: Tensor) -> Tensor:
    """Cosine similarities of an image's tokens (B, N, C) to each other, (B, N, N)."""
    directions = F.normalize(tokens.float(), dim=-1)
    return directions @ directions.transpose(1, 2)


@torch.no_grad()
def effective_rank(tokens: Tensor, count: int = 256) -> Tensor:
    """How many directions tokens take up: exp of the entropy of their normalized singular values.

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007), as used for features in RankMe (arXiv 2210.02885).

    Args:
        tokens: (B, N, C).
        count: at most so many tokens are looked at, drawn evenly from all; they bound the rank.

    Returns:
        a scalar between 1 and min(count, B N, C); no number if the tokens hold one that is none.
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
        raise ValueError(
            f"Tokens of the student {tuple(student.shape)} and of the teacher {tuple(teacher.shape)} are not as many"
        )
    return F.mse_loss(similarities(student), wanted)


def _float32(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)
