"""Tokens of a PE Core tower in the space of its pooled embedding, and its last block with other attention weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pe_dense.backbones.pe import PETower
from pe_dense.utils.errors import InputError


def embed_tokens(
    tower: PETower, tokens: Tensor, *, naive: bool = False, mix: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Embed tokens one by one, not normalized.

    Args:
        tower: of PE Core, with attention pooling.
        tokens: (N, L, C) of the last block, before ``ln_post``.
        naive: apply the projection to the normalized tokens directly, for comparison: it was trained on the output of
            the pooling, so these embeddings do not fit those of texts.
        mix: as of :meth:`~pe_dense.backbones.transformer.AttentionPool.forward_tokens`.

    Returns:
        (N, L, D).

    Raises:
        ValueError: for a tower without attention pooling.
    """
    if not hasattr(tower, "attn_pool"):
        raise InputError(f"{tower.name} has no attention pooling: use a PE Core model with its head")
    tokens = tower.ln_post(tokens)
    if not naive:
        tokens = tower.attn_pool.forward_tokens(tokens, mix)
    return tokens if tower.proj is None else tokens @ tower.proj


def last_block_tokens(
    tower: PETower,
    images: Tensor,
    weights: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    rotated: bool = False,
    residual: bool = False,
) -> Tensor:
    """Tokens of the last block, computed with other attention weights.

    Args:
        tower: without windows; all blocks before the last run unchanged.
        images: (N, 3, H, W), normalized.
        weights: function of queries, keys and values, each (N, heads, L, d), to attention weights (N, heads, L, L).
        rotated: pass queries and keys with their rotary positions, which favors close tokens; otherwise without, so
            that similarities depend on content alone.
        residual: keep the block's residual connections and MLP (SCLIP); otherwise the output of the attention alone is
            returned (ClearCLIP, NACLIP).

    Returns:
        (N, L, C), prefix tokens included.

    Raises:
        ValueError: for a tower with windows or a single block.
    """
    transformer = tower.transformer
    if transformer.window_size is not None or tower.num_layers < 2:
        raise InputError(
            f"{tower.name}: attention of the last block is replaced in towers of several global blocks only"
        )
    x = tower.forward_features(images, layer_idx=-2)
    block = transformer.resblocks[-1]
    table = transformer.rotary_table(tower.grid_of(images), x.device) if rotated else None
    queries, keys, values = block.attn.qkv(block.ln_1(x)[:, None], table)
    mixed = (weights(queries, keys, values) @ values).transpose(1, 2).flatten(2)  # (N, L, C)
    attended = block.attn.out_proj(mixed)
    if not residual:
        return attended
    x = x + block.ls_1(attended)
    return x + block.ls_2(block.mlp(block.ln_2(x)))
