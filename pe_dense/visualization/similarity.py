"""How alike tokens are, within an image and between images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

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
        raise InputError(
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
    numbers = torch.arange(similarity.numel(), device=similarity.device)
    places = _places(numbers, similarity.shape)
    return [tuple(places[i].tolist()) for i in _apart(similarity.flatten(), [(places, similarity.shape)], count)]


def mutual_matches(
    source: Tensor, target: Tensor, count: int = 8, *, masks: tuple[Tensor, Tensor] | None = None
) -> list[Match]:
    """Parts of two images that are each other's nearest, the most similar first.

    In both images they keep a distance of an eighth of the longer side from each other.

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
    best, here, there = best[mutual], here[mutual], there[forth[mutual]]
    sources, targets = _places(here, source.shape[1:]), _places(there, target.shape[1:])
    chosen = _apart(best, [(sources, source.shape[1:]), (targets, target.shape[1:])], count)
    return [Match(tuple(sources[i].tolist()), tuple(targets[i].tolist()), float(best[i])) for i in chosen]


def _places(numbers: Tensor, grid: Sequence[int]) -> Tensor:
    """Row and column (N, 2) of tokens by their row-major numbers (N,)."""
    return torch.stack([numbers // grid[1], numbers % grid[1]], dim=1)


def _apart(values: Tensor, images: Sequence[tuple[Tensor, Sequence[int]]], count: int) -> list[int]:
    """Numbers of the largest values (N,) whose places keep their distance from those before, in every image.

    Args:
        images: places (N, 2) and grid of each; the distance is an eighth of the grid's longer side.
    """
    left, found = values.clone(), []
    while len(found) < count and (left > -torch.inf).any():
        found.append(int(left.argmax()))
        for places, grid in images:
            distance = (places - places[found[-1]]).float().norm(dim=1)
            left[distance < max(grid) / 8] = -torch.inf
    return found


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
