"""Dense text-aligned features of PE Core: token embeddings and modified attention of the last block."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.pe import PETower
from pe_dense.utils.errors import InputError


def embed_tokens(
    tower: PETower, tokens: Tensor, *, naive: bool = False, mix: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Map each token to the embedding space of the pooled output, without normalization.

    Args:
        tower: PE Core tower with attention pooling.
        tokens: (N, L, C), output of the last block, before ``ln_post``.
        naive: apply the projection to the normalized tokens directly, for comparison. The projection was trained on
            the output of the pooling, so these embeddings are not aligned with text embeddings.
        mix: see :meth:`~pe_dense.backbones.transformer.AttentionPool.forward_tokens`.

    Returns:
        (N, L, D).

    Raises:
        ValueError: if the tower has no attention pooling.
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
    """Compute the tokens of the last block with modified attention weights.

    Args:
        tower: tower without window attention; all blocks before the last one run unchanged.
        images: (N, 3, H, W), normalized.
        weights: function from queries, keys and values, each (N, heads, L, d), to attention weights (N, heads, L, L).
        rotated: apply rotary positions to queries and keys, which favors nearby tokens; otherwise similarities depend
            on content only.
        residual: keep the residual connections and the MLP of the block (SCLIP); otherwise return only the output of
            the attention (ClearCLIP, NACLIP).

    Returns:
        (N, L, C), prefix tokens included.

    Raises:
        ValueError: if the tower has window attention or a single block.
    """
    transformer = tower.transformer
    if transformer.window_size is not None or tower.num_layers < 2:
        raise InputError(
            f"{tower.name}: modifying the attention of the last block requires global attention and at least 2 blocks"
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


def pooled_dim_of(tower: Backbone) -> int:
    """Return the channels of a backbone's pooled embedding.

    Raises:
        ValueError: if it has none.
    """
    if not isinstance(tower, PETower):
        return tower.embed_dim
    if not tower.has_head or tower.config.pool_type == "none":
        raise InputError(f"{tower.name} has no pooled embedding: take a Core tower, such as PE-Core-B16-224")
    return tower.embed_dim if tower.proj is None else tower.proj.shape[1]
