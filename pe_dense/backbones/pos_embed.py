"""Resample position embeddings and the patch embedding to other grids and patch sizes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

POSITION_MODES = ("interpolate", "bicubic", "tile")


def split_cls_entry(table: Tensor) -> tuple[Tensor, Tensor]:
    """Split a position embedding into the entry of the class token and those of the square grid.

    Args:
        table: ((1 +) n * n, C), or the same with a leading dimension of 1 as in the published detectors.

    Returns:
        class token entries (0 or 1, C) and grid entries (n * n, C).

    Raises:
        ValueError: if the number of entries is neither n * n nor 1 + n * n.
    """
    table = table.squeeze(0) if table.dim() == 3 else table
    for entries in (0, 1):
        if math.isqrt(len(table) - entries) ** 2 == len(table) - entries:
            return table[:entries], table[entries:]
    raise InputError(
        f"a position embedding of {len(table)} entries is not a square grid, with or without a class token"
    )


def resize_positions(grid: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize the position embedding of a square grid to another grid.

    Args:
        grid: (n * n, C).
        size: (H, W) in patches.
        mode: 'interpolate' (bilinear, as the published tower), 'bicubic' (as the published detectors), both with
            ``align_corners=False``, or 'tile' (repeat and crop, as for the absolute windows of the detectors).

    Returns:
        (H * W, C); the input itself if the grid is the same.
    """
    side = math.isqrt(len(grid))
    height, width = size
    if (side, side) == (height, width):
        return grid
    grid = grid.view(side, side, -1)
    if mode == "tile":
        grid = grid.repeat((height + side - 1) // side, (width + side - 1) // side, 1)[:height, :width]
    else:
        method = "bilinear" if mode == "interpolate" else "bicubic"
        # On the CPU there is no bicubic kernel for half precision, and rounding twice would change the features.
        image = grid.permute(2, 0, 1)[None].float()
        image = F.interpolate(image, size=size, mode=method, align_corners=False)
        grid = image[0].permute(1, 2, 0).type_as(grid)
    return grid.reshape(height * width, -1)


@torch.no_grad()
def resample_patch_embedding(weight: Tensor, patch_size: int) -> Tensor:
    """Resample the patch embedding to another patch size (bicubic, ``align_corners=False``, as in the detectors).

    Args:
        weight: (C, 3, p, p).
        patch_size: the new patch side in pixels.

    Returns:
        (C, 3, patch_size, patch_size); the input itself if the size is the same.
    """
    if weight.shape[-1] == patch_size:
        return weight
    size = (patch_size, patch_size)
    return F.interpolate(weight.float(), size=size, mode="bicubic", align_corners=False).type_as(weight)


@torch.no_grad()
def resample_positions(table: Tensor, grid_size: int) -> Tensor:
    """Resample a stored position embedding to another native grid (bicubic); the class token entry is kept.

    Args:
        table: ((1 +) n * n, C).
        grid_size: patches along a side of the new grid.

    Returns:
        ((1 +) grid_size ** 2, C).
    """
    entries, grid = split_cls_entry(table)
    return torch.cat([entries, resize_positions(grid, (grid_size, grid_size), "bicubic")])
