"""Which patches a student does not see."""

from __future__ import annotations

import torch
from torch import Tensor


def block_mask(
    batch: int, grid: tuple[int, int], ratio: float, block_size: int = 2, generator: torch.Generator | None = None
) -> Tensor:
    """Draw square blocks of patches, for each image anew.

    Source: Perception Encoder (arXiv 2504.13181), section 5.2: 75 % of the tokens in blocks of 2 x 2.

    Args:
        batch: number of images, B.
        grid: rows and columns of patches, H and W.
        ratio: part of the blocks that is drawn, in [0, 1]; exactly so many, rounded, of every image. On a grid that
            the block size does not divide, the last blocks are cut off by the edge and count as whole ones.
        block_size: side of a block in patches.
        generator: of random numbers on the CPU; PyTorch's own by default. The same seed draws the same mask on any
            device.

    Returns:
        (B, H, W), bool, true where a patch is masked; on the CPU.
    """
    rows, columns = (-(-side // block_size) for side in grid)
    order = torch.rand(batch, rows * columns, generator=generator).argsort(1).argsort(1)
    blocks = (order < round(ratio * rows * columns)).view(batch, rows, columns)
    mask = blocks.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2)
    return mask[:, : grid[0], : grid[1]]
