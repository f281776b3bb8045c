"""Block-wise masks of patches."""

import pytest
import torch

from pe_dense.distillation.spatial_alignment import block_mask


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_three_quarters_in_whole_blocks():
    mask = block_mask(5, (32, 32), 0.75, generator=seeded(0))
    assert mask.shape == (5, 32, 32) and mask.dtype == torch.bool
    assert mask.flatten(1).sum(1).tolist() == [768] * 5  # of 1024
    blocks = mask.view(5, 16, 2, 16, 2).sum((2, 4))
    assert set(blocks.unique().tolist()) == {0, 4}
    assert not torch.equal(mask[0], mask[1])


@pytest.mark.parametrize("grid", [(7, 5), (1, 9), (3, 3)])
def test_odd_grids_are_covered_by_cut_blocks(grid):
    mask = block_mask(400, grid, 0.75, generator=seeded(0))
    rows, columns = (-(-side // 2) for side in grid)
    assert mask.shape == (400, *grid)
    corners = mask[:, ::2, ::2]  # one patch of every block
    assert corners.flatten(1).sum(1).tolist() == [round(0.75 * rows * columns)] * 400
    assert torch.equal(corners.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : grid[0], : grid[1]], mask)
    often = mask.float().mean(0)
    assert (often - round(0.75 * rows * columns) / (rows * columns)).abs().max() < 0.1  # no place is favored


def test_block_size_and_ratio():
    blocks = block_mask(1, (8, 8), 0.5, block_size=4, generator=seeded(0)).view(2, 4, 2, 4).sum((1, 3))
    assert sorted(blocks.flatten().tolist()) == [0, 0, 16, 16]
    assert not block_mask(1, (4, 4), 0.0).any()
    assert block_mask(1, (4, 4), 1.0).all()


def test_a_seed_draws_the_same_mask_again():
    first = block_mask(2, (16, 16), 0.75, generator=seeded(3))
    assert torch.equal(first, block_mask(2, (16, 16), 0.75, generator=seeded(3)))
    assert not torch.equal(first, block_mask(2, (16, 16), 0.75, generator=seeded(4)))
    torch.manual_seed(3)
    assert torch.equal(first, block_mask(2, (16, 16), 0.75))
