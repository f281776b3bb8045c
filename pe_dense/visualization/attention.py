"""Where a token looks: the attention of a tower's own blocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from pe_dense.backbones import PETower
from pe_dense.backbones.attention import Windows
from pe_dense.backbones.pe import block_numbers
from pe_dense.backbones.transformer import Attention
from pe_dense.utils.errors import InputError


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
        raise InputError(f"{tower.name} has no class token here: name a token by its row and column")
    if token is not None and not all(0 <= place < length for place, length in zip(token, grid, strict=True)):
        raise InputError(f"token {token} lies outside of the grid of {grid[0]} x {grid[1]} tokens")
    blocks = block_numbers("blocks", blocks, tower.num_layers)
    number = 0 if token is None else int(has_cls) + token[0] * grid[1] + token[1]
    size = tower.transformer.window_size
    maps: dict[int, Tensor] = {}

    def keep(attention: Attention, arguments: tuple, block: int) -> None:
        queries, keys, _ = attention.queries_keys_values(*arguments)
        windowed = size is not None and block not in tower.transformer.global_blocks
        windows = Windows(*grid, size) if windowed else None
        maps[block] = _from_token(queries, keys, number, len(images), grid, windows, int(has_cls))

    with ExitStack() as hooks:
        for block in blocks:
            attention = tower.transformer.resblocks[block].attn
            hooks.enter_context(attention.register_forward_pre_hook(partial(keep, block=block)))
        for _ in tower.iter_taps(images, [max(blocks)]):
            pass
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
