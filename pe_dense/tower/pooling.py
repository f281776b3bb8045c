"""Attention pooling of the Core towers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pe_dense.tower.block import LAYER_NORM_EPS, MLP


class AttentionPooling(nn.Module):
    """One learned query gathers all tokens, an MLP follows (published parameter names).

    Args:
        width: channels of a token.
        heads: attention heads.
    """

    MLP_RATIO = 4  # of every published tower, the 8960 wide G included

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layernorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, width * self.MLP_RATIO)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, C)."""
        query = self.probe.expand(len(tokens), -1, -1)
        pooled = self.attn(query, tokens, tokens, need_weights=False)[0]
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]
