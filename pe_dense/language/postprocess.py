"""From similarities of pixels and prompts to a label map: synonyms, thresholds, refinement (SCLIP, NACLIP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_symmetric(images: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Pad images with zeros on all sides to multiples of a number of pixels.

    Args:
        images: (N, C, H, W).
        multiple: in pixels.

    Returns:
        the padded images, and rows and columns of the original ones in them.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    top, left = bottom // 2, right // 2
    padded = F.pad(images, (left, right - left, top, bottom - top))
    return padded, (slice(top, top + height), slice(left, left + width))


def class_scores(similarities: Tensor, query_classes: Tensor, scale: float) -> Tensor:
    """Scores of classes: the softmax over all prompts, of which a class takes its best synonym.

    Args:
        similarities: (N, Q, H, W), cosines.
        query_classes: (Q,), class of each prompt; every class from 0 to the largest has one.
        scale: factor of the cosines before the softmax.

    Returns:
        (N, K, H, W).
    """
    probabilities = (scale * similarities).softmax(dim=1)
    index = query_classes.to(similarities.device)[None, :, None, None].expand_as(probabilities)
    shape = (len(similarities), int(query_classes.max()) + 1, *similarities.shape[2:])
    return probabilities.new_zeros(shape).scatter_reduce(1, index, probabilities, "amax", include_self=False)


def suppress_small_classes(scores: Tensor, threshold: float) -> Tensor:
    """Set the scores of classes that cover little of the foreground to 0 (SCLIP's area threshold).

    Args:
        scores: (N, K, H, W), class 0 being the background.
        threshold: share of the pixels of other classes than 0, at or below which a class is suppressed.
    """
    labels = scores.argmax(dim=1).flatten(1)
    areas = F.one_hot(labels, scores.shape[1])[:, :, 1:].sum(dim=1)  # (N, K - 1)
    kept = areas > threshold * areas.sum(dim=1, keepdim=True)
    factors = F.pad(kept.to(scores.dtype), (1, 0), value=1.0)
    return scores * factors[:, :, None, None]


def label_map(scores: Tensor, threshold: float = 0.0) -> Tensor:
    """Labels (N, H, W) of the best classes of scores (N, K, H, W); 0 where the best score is below the threshold."""
    best, labels = scores.max(dim=1)
    return labels.masked_fill(best < threshold, 0)


def refine(images: Tensor, maps: Tensor, steps: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Pixel-adaptive mask refinement (PAMR, arXiv 2005.08104): replace values by a mean of similar neighbors.

    Args:
        images: (N, C, H, W).
        maps: (N, Q, H, W).
        steps: number of repetitions.
        dilations: distances of the eight neighbors in pixels.

    Returns:
        (N, Q, H, W).
    """

    def neighbors(x: Tensor, with_center: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, C, neighbors, H, W)."""
        height, width = x.shape[-2:]
        shifted = []
        for d in dilations:
            padded = F.pad(x, (d, d, d, d), mode="replicate")
            for top in (0, d, 2 * d):
                for left in (0, d, 2 * d):
                    if with_center or (top, left) != (d, d):
                        shifted.append(padded[..., top : top + height, left : left + width])
        return torch.stack(shifted, dim=2)

    deviation = neighbors(images, with_center=True).std(dim=2, keepdim=True)
    difference = (neighbors(images) - images[:, :, None]).abs()
    weights = (-difference / (0.1 * deviation + 1e-8)).mean(dim=1, keepdim=True).softmax(dim=2)
    for _ in range(steps):
        maps = (weights * neighbors(maps)).sum(dim=2)
    return maps
