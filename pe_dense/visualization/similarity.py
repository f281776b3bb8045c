"""Cosine similarity and mutual nearest neighbors of tokens, within an image and between images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

_PART = 4096  # tokens per chunk that are compared with all others


class Match(NamedTuple):
    """A pair of matching tokens of two images: (row, column) of each, and their cosine similarity."""

    source: tuple[int, int]
    target: tuple[int, int]
    similarity: float


def cosine_similarity(features: Tensor, query: Tensor) -> Tensor:
    """Compute the cosine similarity of every token to a query.

    Args:
        features: (N, C, H, W).
        query: (C,), for example ``features[0, :, row, column]``.

    Returns:
        (N, H, W) float32, between -1 and 1.

    Raises:
        ValueError: for other shapes.
    """
    if features.dim() != 4 or query.shape != features.shape[1:2]:
        raise InputError(
            f"features must be (N, C, H, W) and query (C,), got {tuple(features.shape)} and {tuple(query.shape)}"
        )
    return torch.einsum("nchw,c->nhw", F.normalize(features.float(), dim=1), F.normalize(query.float(), dim=0))


def nearest_tokens(similarity: Tensor, count: int = 1) -> list[tuple[int, int]]:
    """Find the most similar tokens of a map, at a distance of at least an eighth of the longer side from each other.

    Args:
        similarity: (H, W).
        count: maximum number of results.

    Returns:
        (row, column) each, the most similar first.
    """
    numbers = torch.arange(similarity.numel(), device=similarity.device)
    places = _places(numbers, similarity.shape)
    return [tuple(places[i].tolist()) for i in _apart(similarity.flatten(), [(places, similarity.shape)], count)]


def mutual_matches(
    source: Tensor, target: Tensor, count: int = 8, *, masks: tuple[Tensor, Tensor] | None = None
) -> list[Match]:
    """Find mutual nearest neighbors of two images, the most similar first.

    In both images, the tokens are at a distance of at least an eighth of the longer side from each other.

    Args:
        source, target: (C, H, W), with the same C.
        count: maximum number of results.
        masks: (H, W) bool each, the tokens to compare.

    Returns:
        at most ``count`` matches; fewer if there are no more mutual nearest neighbors.
    """
    masks = (None, None) if masks is None else masks
    here, there = (_numbers(x, mask) for x, mask in zip((source, target), masks, strict=True))
    if not len(here) or not len(there):
        return []
    a, b = (F.normalize(x.flatten(1)[:, tokens].float(), dim=0).T for x, tokens in ((source, here), (target, there)))
    best, forth = _nearest(a, b)
    _, back = _nearest(b, a)
    mutual = back[forth] == torch.arange(len(here), device=here.device)
    best, here, there = best[mutual], here[mutual], there[forth[mutual]]
    sources, targets = _places(here, source.shape[1:]), _places(there, target.shape[1:])
    chosen = _apart(best, [(sources, source.shape[1:]), (targets, target.shape[1:])], count)
    return [Match(tuple(sources[i].tolist()), tuple(targets[i].tolist()), float(best[i])) for i in chosen]


def _places(numbers: Tensor, grid: Sequence[int]) -> Tensor:
    """Convert row-major token numbers (N,) to rows and columns (N, 2)."""
    return torch.stack([numbers // grid[1], numbers % grid[1]], dim=1)


def _apart(values: Tensor, images: Sequence[tuple[Tensor, Sequence[int]]], count: int) -> list[int]:
    """Select the largest values (N,) greedily, with a minimum distance in every image (non-maximum suppression).

    Args:
        images: token positions (N, 2) and grid of each image; the distance is an eighth of the longer side of the grid.
    """
    left, found = values.clone(), []
    while len(found) < count and (left > -torch.inf).any():
        found.append(int(left.argmax()))
        for places, grid in images:
            distance = (places - places[found[-1]]).float().norm(dim=1)
            left[distance < max(grid) / 8] = -torch.inf
    return found


def _numbers(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the row-major numbers of the tokens of a map (C, H, W) that a mask (H, W) selects."""
    mask = torch.ones(features.shape[1:], dtype=torch.bool) if mask is None else mask
    return mask.to(features.device).flatten().nonzero()[:, 0]


def _nearest(tokens: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest of other tokens (M, C) for each token (N, C): cosine similarity and index.

    Computed in chunks, because the full matrix needs too much memory for large images.
    """
    found = [(part @ others.T).max(dim=1) for part in tokens.split(_PART)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
