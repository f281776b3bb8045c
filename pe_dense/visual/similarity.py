"""How alike tokens are, within an image and between images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
    a, b = (F.normalize(x.flatten(1).float(), dim=0) for x in (source, target))
    similarity = a.T @ b  # (source tokens, target tokens)
    if masks is not None:
        similarity[~masks[0].flatten()] = -torch.inf
        similarity[:, ~masks[1].flatten()] = -torch.inf
    best, forth = similarity.max(dim=1)
    back = similarity.argmax(dim=0)
    mutual = back[forth] == torch.arange(len(forth), device=forth.device)
    ranking = torch.where(mutual, best, -torch.inf).view(source.shape[1:])
    matches = []
    for row, column in nearest_tokens(ranking, count):
        token = row * source.shape[2] + column
        matches.append(Match((row, column), divmod(int(forth[token]), target.shape[2]), float(ranking[row, column])))
    return matches
