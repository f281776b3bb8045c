"""Bilinear interpolation of feature maps as defined by RoIAlign."""

import torch
from torch import Tensor


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Compute the four neighboring pixels of each point and their bilinear weights.

    Pixel centers are at integer coordinates. Points up to one pixel outside the map take the value at its border;
    points further out have weight 0 (as RoIAlign in Detectron2 and mmcv).

    Args:
        y, x: (...), coordinates of points in pixels.
        height, width: size of the map in pixels.

    Returns:
        indices into the flattened map, (4, ...) int64, and weights, (4, ...).
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    indices = [top * width + left, top * width + right, bottom * width + left, bottom * width + right]
    weights = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
    return torch.stack(indices), torch.stack(weights) * inside


def gather(maps: Tensor, batch: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Interpolate maps at points that are shared by all channels of a region.

    Args:
        maps: (B, C, H, W).
        batch: (K,) int64, index of the map of each region.
        indices, weights: (4, K, h, w), see :func:`corners`.

    Returns:
        (K, C, h, w).
    """
    pixels = maps.flatten(2).transpose(1, 2)  # (B, HW, C)
    values = torch.zeros((), dtype=maps.dtype, device=maps.device)
    for index, weight in zip(indices, weights, strict=True):
        values = values + pixels[batch[:, None, None], index] * weight[..., None]  # (K, h, w, C)
    return values.permute(0, 3, 1, 2)  # (K, C, h, w)


def scatter(values: Tensor, batch: Tensor, indices: Tensor, weights: Tensor, shape: torch.Size) -> Tensor:
    """Compute the gradient of :func:`gather` for points that differ between channels.

    Args:
        values: (K, C, h, w), gradient of the interpolated values.
        batch: (K,) int64, index of the map of each region.
        indices, weights: (4, K, C, h, w), see :func:`corners`.
        shape: (B, C, H, W), shape of the maps.

    Returns:
        (B, C, H, W), gradient of the maps.
    """
    channels, height, width = shape[1:]
    plane = batch[:, None] * channels + torch.arange(channels, device=batch.device)  # (K, C)
    start = (plane * height * width)[..., None, None]
    maps = torch.zeros(shape, dtype=torch.result_type(values, weights), device=values.device)
    for index, weight in zip(indices, weights, strict=True):
        maps.view(-1).index_add_(0, (start + index).flatten(), (values * weight).flatten())
    return maps
