"""Photos through towers: at which size, and their maps one block after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from pe_dense.tower import PETower
from pe_dense.tower.tower import block_numbers
from pe_dense.visual.photos import to_input


def input_size(size: tuple[int, int], long_side: int, patch: int) -> tuple[int, int]:
    """Size at which a photo goes through a tower: whole patches, at least one, as near to its proportions as that gets.

    Args:
        size: (width, height) of the photo.
        long_side: about how long its longer side should be, in pixels.
        patch: side of a patch in pixels.

    Returns:
        (width, height), multiples of ``patch``.

    Raises:
        ValueError: if ``long_side`` is shorter than a patch.
    """
    if long_side < patch:
        raise ValueError(f"size {long_side} is shorter than a patch of {patch} px")
    scale = long_side / max(size)
    width, height = (max(round(side * scale / patch), 1) * patch for side in size)
    return width, height


def native_side(tower: PETower) -> int:
    """Side in pixels of the images that a tower was made for."""
    return tower.transformer.rope_native_grid * tower.variant.patch_size


def prepare(photo: Image.Image, tower: PETower, long_side: int) -> Tensor:
    """A photo as a tower's input (1, 3, H, W), on the tower's device; see :func:`input_size`."""
    size = input_size(photo.size, long_side, tower.variant.patch_size)
    return to_input(photo.resize(size, Image.Resampling.BICUBIC)).to(tower.conv1.weight.device)


@torch.no_grad()
def iter_maps(tower: PETower, images: Tensor, blocks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Give each block's map as soon as it is there, and keep none.

    Args:
        tower: a tower.
        images: (B, 3, H, W).
        blocks: block numbers from 0, negatives from the end.

    Yields:
        (block number from 0, (B, C, H / p, W / p) float32) in rising order of the blocks.
    """
    grid = tower.grid_of(images)
    for block, tokens in tower.iter_taps(images, block_numbers("blocks", blocks, tower.num_layers)):
        patches = tokens[:, int(tower.variant.use_cls_token) :].float()
        yield block, patches.transpose(1, 2).unflatten(2, grid)


def token_at(point: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """The token under a point of a photo.

    Args:
        point: x and y in pixels of the photo.
        size: (width, height) of the photo.
        grid: rows and columns of tokens.

    Returns:
        (row, column).

    Raises:
        ValueError: if the point lies outside.
    """
    if not all(0 <= place < side for place, side in zip(point, size, strict=True)):
        raise ValueError(f"point {point[0]:g},{point[1]:g} lies outside of the photo of {size[0]} x {size[1]} px")
    return int(point[1] * grid[0] / size[1]), int(point[0] * grid[1] / size[0])


def centre_of(token: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """The middle (x, y) of a token (row, column) in a photo of size (width, height)."""
    return (token[1] + 0.5) * size[0] / grid[1], (token[0] + 0.5) * size[1] / grid[0]
