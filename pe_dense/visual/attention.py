"""Where a token looks: the attention of a tower's own blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pe_dense.tower import PETower
from pe_dense.tower.tower import block_numbers
from pe_dense.tower.window import Windows


class _QueriesAndKeys(TorchFunctionMode):
    """Keeps what the attention of certain blocks is given; a block calls it once."""

    def __init__(self, blocks: Sequence[int]):
        super().__init__()
        self.blocks = blocks
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._block = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            if self._block in self.blocks:
                self.kept[self._block] = args[:2]
            self._block += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def block_attention(
    tower: PETower, images: Tensor, token: tuple[int, int] | None, blocks: Sequence[int] = (-1,)
) -> dict[int, Tensor]:
    """Attention of blocks from one token to all others, from the queries and keys that the blocks really use.

    So rotary positions and windows are in it: in a windowed block, tokens of other windows get 0. The blocks run once,
    up to the last one asked for.

    Args:
        tower: a tower.
        images: (B, 3, H, W).
        token: (row, column) of the grid; None for the class token.
        blocks: block numbers from 0, negatives from the end.

    Returns:
        for each block number from 0, weights (B, heads, H / p, W / p). They sum to 1 but for what goes to a class
        token or to tokens that fill up windows.

    Raises:
        ValueError: for a block or token out of range, or no class token to look from.
    """
    grid = tower.grid_of(images)
    has_cls = tower.variant.use_cls_token
    if token is None and not has_cls:
        raise ValueError(f"{tower.name} has no class token here: name a token by its row and column")
    if token is not None and not all(0 <= place < length for place, length in zip(token, grid, strict=True)):
        raise ValueError(f"token {token} lies outside of the grid of {grid[0]} x {grid[1]} tokens")
    blocks = block_numbers("blocks", blocks, tower.num_layers)
    with _QueriesAndKeys(blocks) as seen:
        for _ in tower.iter_taps(images, [max(blocks)]):
            pass
    number = 0 if token is None else int(has_cls) + token[0] * grid[1] + token[1]
    size = tower.transformer.window_size
    maps = {}
    for block, (queries, keys) in seen.kept.items():
        windowed = size is not None and block not in tower.transformer.global_blocks
        windows = Windows(*grid, size) if windowed else None
        maps[block] = _from_token(queries, keys, number, len(images), grid, windows, int(has_cls))
    return maps


def _from_token(
    queries: Tensor, keys: Tensor, number: int, batch: int, grid: tuple[int, int], windows: Windows | None, first: int
) -> Tensor:
    """Weights (B, heads, H, W) from queries and keys (B * G, heads, N, d) and the number of a token in the image."""
    queries, keys = (x.float().unflatten(0, (batch, -1)) for x in (queries, keys))  # (B, G, heads, N, d)
    order = torch.arange(1, first + grid[0] * grid[1] + 1, device=queries.device).view(1, 1, -1, 1)
    order = order if windows is None else windows.split(order)  # (1, G, N, 1); 0 fills up
    _, group, place, _ = (order == number + 1).nonzero()[0]
    query = queries[:, group, :, place, None]  # (B, heads, 1, d)
    weights = (query @ keys[:, group].transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=-1)
    spread = weights.new_zeros(batch, order.shape[1], order.shape[2], weights.shape[1])  # (B, G, N, heads)
    spread[:, group] = weights[:, :, 0].transpose(1, 2)
    whole = spread if windows is None else windows.merge(spread)  # (B, 1, tokens, heads)
    return whole[:, 0, first:].transpose(1, 2).unflatten(2, grid)
