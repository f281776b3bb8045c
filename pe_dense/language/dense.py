"""Compute text-aligned embeddings of patches without training.

Sources: MaskCLIP (arXiv 2112.01071), SCLIP (2312.01597), ClearCLIP (2407.12442), NACLIP (2404.08181) and ProxyCLIP
(2408.04883). In PE Core the projection follows an attention pooling and an MLP, so applying it to tokens directly
('naive') leaves its input space; see :meth:`~pe_dense.backbones.transformer.AttentionPool.forward_tokens`. In shapes
N is the batch, L the number of tokens, C the width, D the embedding's channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

SIMILARITIES = ("qk", "qq", "kk", "vv", "qq+kk", "none", "identity")
# Settings of the modes that change the attention of the last block: similarity, Gaussian of the distance, residual.
OWN_ATTENTION = {
    "self": ("kk", None, False),
    "sclip": ("qq+kk", None, True),
    "clearclip": ("qq", None, False),
    "naclip": ("kk", 5.0, False),
}
# How patches of a PE Core model are embedded; see :class:`~pe_dense.language.OpenVocabularySegmenter`.
CORE_MODES = ("pooled", "proxy", *OWN_ATTENTION, "naive")
BACKGROUND = "background"


def attention_weights(
    queries: Tensor, keys: Tensor, values: Tensor, similarity: str, bias: Tensor | None = None
) -> Tensor:
    """Compute the attention weights of training-free methods.

    Args:
        queries, keys, values: (N, heads, L, d).
        similarity: 'qk' (the model's own), 'qq' (ClearCLIP), 'kk' (NACLIP, with ``bias``), 'vv', 'qq+kk' (SCLIP, whose
            rows sum to 2), 'none' (``bias`` alone, NACLIP's ablation) or 'identity' (MaskCLIP).
        bias: (L, L), added to the logits; for 'none' scaled by the mean of the products of the lengths of queries and
            keys, a mean per image.

    Returns:
        (N, heads, L, L).

    Raises:
        ValueError: for another similarity.
    """
    if similarity not in SIMILARITIES:
        raise InputError(f"similarity {similarity!r} is not one of {', '.join(SIMILARITIES)}")
    length, scale = queries.shape[2], queries.shape[3] ** -0.5
    if similarity == "identity":
        return torch.eye(length, device=queries.device, dtype=queries.dtype).expand(*queries.shape[:2], -1, -1)
    if similarity == "none":
        if bias is None:
            raise InputError("similarity 'none' needs a bias")
        # The mean over all pairs of tokens of a product is the product of the means.
        sizes = queries.norm(dim=3).mean(dim=2) * keys.norm(dim=3).mean(dim=2)  # (N, heads)
        return (
            (scale * sizes.mean(dim=1)[:, None, None, None] * bias).softmax(dim=-1).expand(-1, queries.shape[1], -1, -1)
        )
    named = dict(q=queries, k=keys, v=values)
    weights = 0
    for pair in similarity.split("+"):
        logits = named[pair[0]] * scale @ named[pair[1]].transpose(2, 3)
        weights = weights + (logits if bias is None else logits + bias).softmax(dim=-1)
    return weights


def gaussian_bias(grid: tuple[int, int], sigma: float = 5.0, num_prefix_tokens: int = 0) -> Tensor:
    """Compute NACLIP's logits of neighboring patches: a Gaussian of their distance in patches, 0 for prefix tokens.

    Returns:
        (L, L), L being the prefix tokens and the patches in row-major order.
    """
    rows, columns = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    distance = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    return F.pad(torch.exp(-distance / (2 * sigma**2)), (num_prefix_tokens, 0, num_prefix_tokens, 0))


def proxy_weights(features: Tensor, beta: float = 1.2, gamma: float = 3.0, *, over_batch: bool = False) -> Tensor:
    """Compute ProxyCLIP's attention weights from the cosine similarities of another backbone's features.

    Args:
        features: (N, C, h, w).
        beta: factor of the mean similarity that is subtracted.
        gamma: factor of the difference; negative results are masked out, except for tokens that have no others.
        over_batch: take the mean over all images, as the published code does; results then depend on the batch.

    Returns:
        (N, h * w, h * w).
    """
    features = F.normalize(features.flatten(2), dim=1)
    similarity = features.transpose(1, 2) @ features
    mean = similarity.mean() if over_batch else similarity.mean(dim=(1, 2), keepdim=True)
    logits = gamma * (similarity - beta * mean)
    lower = logits < 0
    # Where all tokens are alike, as in a uniform image, even a token's similarity to itself is below the mean times
    # beta: nothing is masked out there.
    lower &= ~lower.all(dim=-1, keepdim=True)
    return logits.masked_fill(lower, -torch.inf).softmax(dim=-1)


def mix_by_proxy(values: Tensor, grid: tuple[int, int], weights: Tensor, proxy_grid: tuple[int, int]) -> Tensor:
    """Resample values to the grid of the proxy and average them by its weights.

    Args:
        values: (N, h * w, C) of the patches.
        grid: h and w.
        weights: (N, L, L), of :func:`proxy_weights`.
        proxy_grid: rows and columns of the L tokens.

    Returns:
        (N, L, C).
    """
    if grid != proxy_grid:
        maps = values.transpose(1, 2).unflatten(2, grid)
        values = F.interpolate(maps, proxy_grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    return weights @ values


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
    """Compute class scores: a softmax over all prompts, then the maximum over the synonyms of each class.

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


def word_maps(
    similarities: Tensor,
    query_classes: Tensor,
    size: tuple[int, int],
    scale: float,
    threshold: float = 0.0,
    *,
    has_background: bool = False,
) -> tuple[Tensor, Tensor]:
    """Maps of one image that can be drawn: the similarity of each class, and the best class of each pixel.

    Args:
        similarities: (Q, h, w), cosines of patches and prompts.
        query_classes, scale: as of :func:`class_scores`.
        size: height and width of the labels.
        threshold: pixels whose best score is lower have no class, or class 0 if that is the background.
        has_background: class 0 is the background.

    Returns:
        cosines (K, h, w) of the best synonym of each class, and labels (H, W), K where there is no class.
    """
    count = int(query_classes.max()) + 1
    index = query_classes.to(similarities.device)[:, None, None].expand_as(similarities)
    cosines = similarities.new_zeros(count, *similarities.shape[1:])
    cosines = cosines.scatter_reduce(0, index, similarities, "amax", include_self=False)
    maps = F.interpolate(similarities[None], size, mode="bilinear", align_corners=False)
    best, labels = class_scores(maps, query_classes, scale)[0].max(dim=0)
    return cosines, labels.masked_fill(best < threshold, 0 if has_background else count)


def suppress_small_classes(scores: Tensor, threshold: float) -> Tensor:
    """Set the scores of classes that cover little of the foreground to 0 (SCLIP's area threshold).

    Args:
        scores: (N, K, H, W), class 0 being the background.
        threshold: fraction of the foreground pixels at or below which a class is suppressed.
    """
    labels = scores.argmax(dim=1).flatten(1)
    areas = F.one_hot(labels, scores.shape[1])[:, :, 1:].sum(dim=1)  # (N, K - 1)
    kept = areas > threshold * areas.sum(dim=1, keepdim=True)
    factors = F.pad(kept.to(scores.dtype), (1, 0), value=1.0)
    return scores * factors[:, :, None, None]


def label_map(scores: Tensor, threshold: float = 0.0) -> Tensor:
    """Return the labels (N, H, W) of the best classes of scores (N, K, H, W); 0 if the best score is below the "
    "threshold."""
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

    height, width = maps.shape[-2:]

    def shifted(x: Tensor, with_center: bool = False) -> Iterator[Tensor]:
        """Yield the values of each neighbor, (N, C, H, W)."""
        for d in dilations:
            padded = F.pad(x, (d, d, d, d), mode="replicate")
            for top in (0, d, 2 * d):
                for left in (0, d, 2 * d):
                    if with_center or (top, left) != (d, d):
                        yield padded[..., top : top + height, left : left + width]

    deviation = torch.stack(list(shifted(images, with_center=True)), dim=2).std(dim=2)
    differences = ((images - neighbor).abs() / (0.1 * deviation + 1e-8) for neighbor in shifted(images))
    weights = torch.stack([-difference.mean(dim=1, keepdim=True) for difference in differences]).softmax(dim=0)
    for _ in range(steps):
        # One neighbor after the other: all of them at once take 16 times the memory of the maps.
        maps = sum(weight * neighbor for weight, neighbor in zip(weights, shifted(maps), strict=True))
    return maps


_BAND = 1 << 24  # values of a band of upsampled maps: 64 MB in float32, and as much for each step on it


def upsampled_bands(maps: Tensor, size: tuple[int, int], limit: int = _BAND) -> Iterator[Tensor]:
    """Resize maps bilinearly, in bands of rows if the result has many values.

    150 maps of a photo of 24 million pixels would take 14 GB.

    Args:
        maps: (N, Q, h, w).
        size: (H, W) of the result.
        limit: largest number of values of a band.

    Yields:
        (N, Q, rows, W) from top to bottom; a single band is exactly that of ``F.interpolate``.
    """
    height, width = size
    rows = max(limit // (maps.shape[0] * maps.shape[1] * width), 1)
    if rows >= height:
        yield F.interpolate(maps, size, mode="bilinear", align_corners=False)
        return
    old = maps.shape[2]
    places = ((torch.arange(height, device=maps.device) + 0.5) * (old / height) - 0.5).clamp(min=0)
    low = places.long()
    share = (places - low).to(maps)[:, None]
    high = (low + 1).clamp(max=old - 1)
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        band = torch.lerp(maps[:, :, low[part]], maps[:, :, high[part]], share[part])
        yield F.interpolate(band, (band.shape[2], width), mode="bilinear", align_corners=False)
