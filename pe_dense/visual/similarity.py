"""How alike tokens are, within an image and between images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_PART = 4096  # tokens that are compared with all others at a time


class Match(NamedTuple):
    """A token of one image and its counterpart in another: (row, column) each, and the cosine of their angle."""

    source: tuple[int, int]
    target: tuple[int, int]
    similarity: float


def cosine_similarity(features: Tensor, query: Tensor) -> Tensor:
    """Cosine of the angle between every token and a given one.

    Args:
        features: (N, C, H, W).
        query: (C,), as ``features[0, :, row, column]``.

    Returns:
        (N, H, W) float32, between -1 and 1.

    Raises:
        ValueError: for other shapes.
    """
    if features.dim() != 4 or query.shape != features.shape[1:2]:
        raise ValueError(
            f"features (N, C, H, W) and a query (C,) are needed, got {tuple(features.shape)} and {tuple(query.shape)}"
        )
    return torch.einsum("nchw,c->nhw", F.normalize(features.float(), dim=1), F.normalize(query.float(), dim=0))


def nearest_tokens(similarity: Tensor, count: int = 1) -> list[tuple[int, int]]:
    """The most similar tokens of a map, each at some distance (an eighth of the longer side) from those before it.

    Args:
        similarity: (H, W).
        count: how many at most.

    Returns:
        (row, column) each, the most similar first.
    """
    left = similarity.clone()
    rows, columns = (torch.arange(length, device=left.device) for length in left.shape)
    apart = max(left.shape) / 8
    found = []
    for _ in range(count):
        row, column = divmod(int(left.argmax()), left.shape[1])
        if left[row, column] == -torch.inf:
            break
        found.append((row, column))
        near = (rows[:, None] - row) ** 2 + (columns - column) ** 2 < apart**2
        left[near] = -torch.inf
    return found


def mutual_matches(
    source: Tensor, target: Tensor, count: int = 8, *, masks: tuple[Tensor, Tensor] | None = None
) -> list[Match]:
    """Parts of two images that are each other's nearest, the most similar first and at some distance of each other.

    Args:
        source, target: (C, H, W), of one C.
        count: how many at most.
        masks: (H, W) bool each, the tokens to look at.

    Returns:
        at most ``count`` matches; fewer where no more parts are mutually nearest.
    """
    masks = (None, None) if masks is None else masks
    here, there = (_numbers(x, mask) for x, mask in zip((source, target), masks, strict=True))
    if not len(here) or not len(there):
        return []
    a, b = (F.normalize(x.flatten(1)[:, tokens].float(), dim=0).T for x, tokens in ((source, here), (target, there)))
    best, forth = _nearest(a, b)
    _, back = _nearest(b, a)
    mutual = back[forth] == torch.arange(len(here), device=here.device)
    ranking = best.new_full(source.shape[1:], -torch.inf)
    ranking.view(-1)[here[mutual]] = best[mutual]
    counterpart = dict(zip(here.tolist(), there[forth].tolist(), strict=True))
    matches = []
    for row, column in nearest_tokens(ranking, count):
        target_token = divmod(counterpart[row * source.shape[2] + column], target.shape[2])
        matches.append(Match((row, column), target_token, float(ranking[row, column])))
    return matches


def _numbers(features: Tensor, mask: Tensor | None) -> Tensor:
    """Row-major numbers of the tokens that a mask (H, W) leaves of a map (C, H, W)."""
    mask = torch.ones(features.shape[1:], dtype=torch.bool) if mask is None else mask
    return mask.to(features.device).flatten().nonzero()[:, 0]


def _nearest(tokens: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine of each token (N, C) with one of others (M, C), and that one's number.

    In parts: all by all is too much for memory in large photos.
    """
    found = [(part @ others.T).max(dim=1) for part in tokens.split(_PART)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
