"""Principal components of feature maps, without ever forming a covariance matrix or a smoothed copy of the maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pe_dense.visual.low_pass import low_pass

COUNT = 3
_BLOCK = (
    16  # vectors that go through the maps together; a pass over the maps is bound by memory, so they cost one's time
)
_PASSES = 12
_TOLERANCE = 5e-3  # sine of the angle by which a pass turns a component; the next ones turn it far less
_QUANTILES = (0.01, 0.99)


@dataclass(frozen=True)
class Basis:
    """Three directions in feature space and the range of the features along them.

    Attributes:
        mean: (C,).
        components: (3, C), orthonormal, of falling variance; the largest entry of each is positive.
        low, high: (3,) the 1 % and 99 % quantiles of the scores.
    """

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Low-passed coordinates of features (N, C, H, W) along the components: (N, 3, H, W)."""
        if features.shape[1] != len(self.mean):
            raise ValueError(f"features have {features.shape[1]} channels, the basis has {len(self.mean)}")
        return _scores(features, self.mean, self.components)

    def unit_scores(self, features: Tensor) -> Tensor:
        """As :meth:`scores`, with the range between the quantiles as 0..1; scores beyond lie outside of it.

        A direction without any spread gives 0.5.
        """
        span = self.high - self.low
        flat = span <= 1e-6 * self.mean.norm()
        unit = (self.scores(features) - self.low[:, None, None]) / torch.where(flat, 1.0, span)[:, None, None]
        return torch.where(flat[:, None, None], 0.5, unit)


def fit_basis(features: Tensor, mask: Tensor | None = None) -> Basis:
    """Principal components of low-passed features over all tokens of all images together.

    Neither the images' order nor chance changes the result. Components are found by block Lanczos iteration from a
    fixed start: a few passes over the maps, until a pass turns no component by more than 0.005.

    Args:
        features: (N, C, H, W), C at least 3.
        mask: (N, H, W) bool, the tokens to look at; all by default.

    Raises:
        ValueError: for other shapes, values that are not finite, or fewer than 4 tokens to look at.
    """
    features, mask = _checked(features, mask)
    weights = mask[:, None].to(features.dtype)  # (N, 1, H, W)
    mean = _through(features, low_pass(weights)) / mask.sum()
    mean = mean[:, 0].float()
    components = _top_directions(features, mean, weights)
    scores = _scores(features, mean, components).transpose(0, 1)[:, mask].cpu().numpy()  # (3, tokens)
    low, high = torch.from_numpy(np.quantile(scores, _QUANTILES, axis=1)).to(mean)
    return Basis(mean, components, low, high)


def _checked(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if features.dim() != 4 or features.shape[1] < COUNT or not features.numel():
        raise ValueError(f"features are (N, C, H, W) with at least {COUNT} channels, got {tuple(features.shape)}")
    features = features.detach().float()
    if not torch.isfinite(features.amax()) or not torch.isfinite(features.amin()):
        raise ValueError("features hold values that are not finite")
    shape = (len(features), *features.shape[2:])
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=features.device)
    if tuple(mask.shape) != shape or mask.dtype != torch.bool:
        raise ValueError(f"mask is bool {shape} for these features, got {mask.dtype} {tuple(mask.shape)}")
    if mask.sum() <= COUNT:
        raise ValueError(f"{int(mask.sum())} tokens are too few for {COUNT} principal components")
    return features, mask.to(features.device)


def _scores(features: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Project, then smooth: both are linear, and three channels are less work than all."""
    features = features.detach().float()
    maps = components @ features.flatten(2) - (components @ mean)[:, None]  # (N, k, H * W)
    return low_pass(maps.unflatten(2, features.shape[2:]))


def _through(features: Tensor, weights: Tensor) -> Tensor:
    """Sum of tokens, weighted by maps (N, k, H, W): (C, k) in float64.

    Images are summed in the order of the summands' size, so that rounding does not depend on the images' order.
    """
    parts = weights.flatten(2) @ features.flatten(2).transpose(1, 2)  # (N, k, C)
    return parts.double().sort(dim=0).values.sum(dim=0).T


def _top_directions(features: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
    """Leading eigenvectors of the weighted tokens' covariance by block Lanczos iteration (Golub and Underwood 1977).

    With S the smoothing, which is its own adjoint, and M the mask, the covariance of the smoothed tokens X S is
    X S M S X', and a product with it passes over X twice.
    """
    channels = features.shape[1]
    width = min(_BLOCK, channels)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(channels, width, generator=generator, dtype=torch.float64).to(features.device)
    block = torch.linalg.qr(block).Q
    basis, images, directions = block, block[:, :0], block[:, :COUNT]
    for _ in range(_PASSES):
        smoothed = _scores(features, mean, block.T.float()) * weights
        block = _through(features, low_pass(smoothed))  # (C, width)
        images = torch.cat([images, block], dim=1)
        small = basis.T @ images
        _, vectors = torch.linalg.eigh((small + small.T) / 2)
        former, directions = directions, basis @ vectors[:, -COUNT:].flip(1)  # (C, 3)
        turned = directions - former * (former * directions).sum(dim=0)
        if bool((turned.norm(dim=0) <= _TOLERANCE).all()) or basis.shape[1] + width > channels:
            break
        for _ in range(2):  # once leaves rounding behind
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return (directions * largest.sign()).T.float()
