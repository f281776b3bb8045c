"""Principal component analysis (PCA) of feature maps, without a covariance matrix or a smoothed copy of the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

SIGMA = 1.0  # tokens


def low_pass(maps: Tensor) -> Tensor:
    """Smooth maps: ``0.5 x + 0.5 g(x)``, g a Gaussian of 3 x 3 tokens with sigma 1 (arXiv 2504.13181, B.3.2).

    Border tokens are replicated. The smoothing therefore preserves sums and is self-adjoint, which
    :mod:`pe_dense.visualization.pca` relies on.

    Args:
        maps: (N, C, H, W), floating.

    Returns:
        (N, C, H, W).
    """
    side, center = math.exp(-1 / (2 * SIGMA**2)), 1.0
    side, center = side / (2 * side + center), center / (2 * side + center)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    rows = side * (padded[..., :-2, :] + padded[..., 2:, :]) + center * padded[..., 1:-1, :]
    return 0.5 * maps + 0.5 * (side * (rows[..., :-2] + rows[..., 2:]) + center * rows[..., 1:-1])


COUNT = 3
_BLOCK = 16  # vectors per pass over the maps: passes are limited by memory bandwidth, so that 16 take the time of one
_PASSES = 12
_TOLERANCE = 5e-3  # sine of the rotation of a component by a pass; later passes rotate it much less
_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True)
class Basis:
    """PCA basis: three directions in feature space and the range of the features along them.

    Attributes:
        mean: (C,).
        components: (3, C), orthonormal, in descending order of variance; the largest entry of each is positive.
        low, high: (3,) the 1 % and 99 % quantiles of the scores.
    """

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Project features (N, C, H, W) on the components and smooth them: (N, 3, H, W)."""
        if features.shape[1] != len(self.mean):
            raise InputError(f"features have {features.shape[1]} channels, the basis has {len(self.mean)}")
        scores = _scores(features, self.mean, self.components)
        _refuse_infinite(scores)
        return scores

    def unit_scores(self, features: Tensor) -> Tensor:
        """Compute :meth:`scores` scaled so that the quantiles become 0 and 1; values beyond them are not clipped.

        The result is 0.5 for a direction without variance.
        """
        span = self.high - self.low
        flat = span <= 1e-6 * self.mean.norm()
        unit = (self.scores(features) - self.low[:, None, None]) / torch.where(flat, 1.0, span)[:, None, None]
        return torch.where(flat[:, None, None], 0.5, unit)

    def align_signs(self, scores: Sequence[Tensor], wanted: Sequence[Tensor]) -> Basis:
        """Flip the sign of components whose scores are negatively correlated with reference scores.

        Args:
            scores: maps (N, 3, H, W) of this basis.
            wanted: the same number of reference maps, for example of the previous layer.
        """
        agreement = sum((mine * other).sum(dim=(0, 2, 3)) for mine, other in zip(scores, wanted, strict=True))
        sign = torch.where(agreement < 0, -1.0, 1.0)
        low, high = sign * self.low, sign * self.high
        return replace(self, components=sign[:, None] * self.components, low=low.minimum(high), high=low.maximum(high))


def fit_basis(features: Tensor | Sequence[Tensor], mask: Tensor | Sequence[Tensor] | None = None) -> Basis:
    """Fit principal components to the smoothed features of all tokens of all images together.

    The result depends neither on the order of the images nor on a random seed. The components are computed by block
    Lanczos iteration from a fixed start: a few passes over the maps, until a pass rotates no component by more than
    0.005.

    Args:
        features: (N, C, H, W), C at least 3; or several of these that differ in N, H and W.
        mask: (N, H, W) bool, the tokens to use, or one mask for each of several features; all tokens by default.

    Raises:
        ValueError: for other shapes, NaN or infinite values, or fewer than 4 selected tokens.
    """
    features = [features] if isinstance(features, Tensor) else list(features)
    masks = [None] * len(features) if mask is None else [mask] if isinstance(mask, Tensor) else list(mask)
    maps, masks = _checked(features, masks)
    weights = [mask[:, None].float() for mask in masks]  # (N, 1, H, W)
    mean = _through(maps, [low_pass(weight) for weight in weights]) / sum(weight.sum() for weight in weights)
    mean = mean[:, 0].float()
    _refuse_infinite(mean)
    components = _top_directions(maps, mean, weights)
    scores = [_scores(x, mean, components).transpose(0, 1)[:, mask] for x, mask in zip(maps, masks, strict=True)]
    quantiles = np.quantile(torch.cat(scores, dim=1).cpu().numpy(), _QUANTILES, axis=1)
    low, high = torch.from_numpy(quantiles).to(mean)
    return Basis(mean, components, low, high)


def _checked(features: list[Tensor], masks: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    checked = []
    for x in features:
        if x.dim() != 4 or x.shape[1] < COUNT or not x.numel() or x.shape[1] != features[0].shape[1]:
            shapes = ", ".join(str(tuple(x.shape)) for x in features)
            raise InputError(f"features must be (N, C, H, W) with one C of at least {COUNT}, got {shapes}")
        checked.append(x.detach().float())
    shapes = [(len(x), *x.shape[2:]) for x in checked]
    if len(masks) != len(checked):
        raise InputError(f"{len(masks)} masks for {len(checked)} maps of features")
    full = []
    for x, mask, shape in zip(checked, masks, shapes, strict=True):
        mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask
        if tuple(mask.shape) != shape or mask.dtype != torch.bool:
            raise InputError(f"mask must be bool {shape} for these features, got {mask.dtype} {tuple(mask.shape)}")
        full.append(mask.to(x.device))
    if (count := int(sum(mask.sum() for mask in full))) <= COUNT:
        raise InputError(f"{count} tokens are too few for {COUNT} principal components")
    return checked, full


def _refuse_infinite(sums: Tensor) -> None:
    """Raise an error for NaN or infinite values. Any sum with such a value is not finite, and sums are few."""
    if not torch.isfinite(sums).all():
        raise InputError("features contain NaN or infinite values")


def _scores(features: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Project, then smooth: both are linear, and smoothing few channels is cheaper than smoothing all."""
    maps = components @ features.detach().float().flatten(2) - (components @ mean)[:, None]  # (N, k, H * W)
    return low_pass(maps.unflatten(2, features.shape[2:]))


def _through(maps: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Sum tokens weighted by maps (N, k, H, W): (C, k) in float64.

    The summands of the images are sorted first, so that rounding does not depend on the order of the images.
    """
    parts = [w.flatten(2) @ x.flatten(2).transpose(1, 2) for x, w in zip(maps, weights, strict=True)]  # (N, k, C)
    return torch.cat(parts).double().sort(dim=0).values.sum(dim=0).T


def _top_directions(maps: list[Tensor], mean: Tensor, weights: list[Tensor]) -> Tensor:
    """Compute leading eigenvectors of the weighted tokens' covariance by block Lanczos iteration.

    The method is that of Golub and Underwood (1977). With S the smoothing, which is self-adjoint, and M the mask, the
    covariance of the smoothed tokens X S is X S M S X', and a product with it passes over X twice.
    """
    channels = len(mean)
    width = min(_BLOCK, channels)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(channels, width, generator=generator, dtype=torch.float64).to(mean.device)
    block = torch.linalg.qr(block).Q
    basis, images, directions = block, block[:, :0], block[:, :COUNT]
    for _ in range(_PASSES):
        rows = block.T.float()
        smoothed = [low_pass(_scores(x, mean, rows) * weight) for x, weight in zip(maps, weights, strict=True)]
        block = _through(maps, smoothed)  # (C, width)
        images = torch.cat([images, block], dim=1)
        small = basis.T @ images
        _, vectors = torch.linalg.eigh((small + small.T) / 2)
        former, directions = directions, basis @ vectors[:, -COUNT:].flip(1)  # (C, 3)
        turned = directions - former * (former * directions).sum(dim=0)
        if bool((turned.norm(dim=0) <= _TOLERANCE).all()) or basis.shape[1] == channels:
            break
        block = block[:, : channels - basis.shape[1]]
        for _ in range(2):  # a single orthogonalization leaves rounding errors
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return (directions * largest.sign()).T.float()
