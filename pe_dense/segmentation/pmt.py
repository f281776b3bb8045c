"""Plain mask transformer (PMT): a small decoder on a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.backbones import Backbone
from pe_dense.backbones.base import resolve_indices
from pe_dense.registry import MODELS
from pe_dense.segmentation.mask_head import MaskTransformerHead, own_norm
from pe_dense.utils.errors import InputError

_THETA = 100.0
_LARGEST_RESCALE = 2.0


@MODELS.register_module()
class PMTHead(MaskTransformerHead):
    """Plain mask transformer (PMT): a decoder of plain blocks on several maps of a frozen backbone.

    Normalized tokens of each map, prefix tokens included, pass a BatchNorm and a residual MLP, are scaled per channel
    and summed. The decoder's blocks see queries and these tokens together, as the last blocks of EoMT do.

    Source: the published code of PMT (tue-mps/pmt). Parameter names follow it without the prefix ``decoder.``.

    Args:
        backbone, options: see :class:`~pe_dense.segmentation.mask_head.MaskTransformerHead`; ``num_blocks`` is the
            number of the decoder's blocks.
        num_heads: attention heads of the decoder.
        interaction_indices: blocks of the backbone whose tokens are used; negative numbers count from the end.

    Raises:
        ValueError: if the backbone is trained, ``num_heads`` does not divide its channels into heads of a multiple of
            4 channels, or a block is out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_things_classes: int,
        num_stuff_classes: int,
        num_heads: int,
        interaction_indices: Sequence[int],
        num_blocks: int = 6,
        **options,
    ):
        super().__init__(backbone, num_things_classes, num_stuff_classes, num_blocks=num_blocks, **options)
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            raise InputError(f"PMTHead needs a frozen backbone, {backbone.name} is trained: set backbone.frozen=True")
        width = backbone.embed_dim
        if num_heads < 1 or width % (4 * num_heads):
            raise InputError(f"num_heads {num_heads} does not divide {width} channels into heads of a multiple of 4")
        self.interaction_indices = resolve_indices("interaction_indices", interaction_indices, backbone.num_layers)
        taps = range(len(self.interaction_indices))
        self.norm = own_norm(backbone)
        self.bn = nn.ModuleList(nn.BatchNorm1d(width) for _ in taps)
        self.lateral_projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, width)) for _ in taps
        )
        self.scalers = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in taps)
        self.blocks = nn.ModuleList(DecoderBlock(width, num_heads) for _ in range(num_blocks))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, backbone: Backbone, images: Tensor, *, all_layers: bool | None = None) -> tuple[list, list]:
        """See :meth:`MaskTransformerHead.forward`."""
        grid = backbone.grid_of(images)
        with torch.no_grad():
            maps = dict(backbone.iter_tokens(images, sorted(set(self.interaction_indices)), norm=self.norm is None))
        patches = self.sum_of_maps([maps[index] for index in self.interaction_indices])
        rope = self.rotary_table(grid, images.device)

        def run_block(k: int, tokens: Tensor, attn_mask: Tensor | None) -> Tensor:
            return self.blocks[k](tokens, rope, attn_mask)

        return self.decode(patches, grid, run_block, self.decoder_norm, all_layers)

    def sum_of_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Sum the adapted tokens of all maps: (B, P + h * w, C) each and in all."""
        total = 0
        for tokens, bn, mlp, scale in zip(maps, self.bn, self.lateral_projections, self.scalers, strict=True):
            tokens = tokens.float() if self.norm is None else self.norm(tokens.float())
            tokens = bn(tokens.transpose(1, 2)).transpose(1, 2)
            total = total + scale * (tokens + mlp(tokens))
        return total

    def rotary_table(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Compute cosines and sines (2, h * w, head channels) of the decoder's rotary positions.

        Positions are the patches' centers, from -1 to 1 along each axis. In training they are multiplied by a random
        factor between 1/2 and 2, uniform in its logarithm.
        """
        rows, columns = ((torch.arange(n, device=device) + 0.5) / n * 2 - 1 for n in grid)
        positions = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (h * w, 2)
        if self.training:
            positions = positions * _LARGEST_RESCALE ** (2 * torch.rand((), device=device) - 1)
        channels = self.blocks[0].attention.head_dim
        steps = torch.arange(channels // 4, dtype=torch.float32, device=device)
        angles = 2 * math.pi * positions[..., None] / _THETA ** (4 * steps / channels)  # (h * w, 2, d / 4)
        angles = angles.flatten(1).tile(2)
        return torch.stack([angles.cos(), angles.sin()])


class DecoderBlock(nn.Module):
    """Pre-norm transformer block with LayerScale and an MLP as wide as the tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.attention = DecoderAttention(width, heads)
        self.layer_scale1 = ScaleOfChannels(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.mlp = DecoderMLP(width)
        self.layer_scale2 = ScaleOfChannels(width)

    def forward(self, x: Tensor, rope: Tensor, attn_mask: Tensor | None) -> Tensor:
        """Apply the block to tokens (B, T, C); the last of them have the rotary positions ``rope``."""
        x = x + self.layer_scale1(self.attention(self.norm1(x), rope, attn_mask))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class DecoderAttention(nn.Module):
    """Multi-head self-attention without a bias of the keys; rotary positions rotate halves of a head's channels."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: Tensor, attn_mask: Tensor | None) -> Tensor:
        """Apply attention: (B, T, C) -> (B, T, C), see :class:`DecoderBlock`."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(_rotate(q, rope), _rotate(k, rope), v, attn_mask=attn_mask)
        return self.o_proj(out.transpose(1, 2).flatten(2))


def _rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate the last tokens of x (B, heads, T, d), for which ``rope`` (2, n, d) has entries."""
    cos, sin = rope.to(torch.float32)
    first = x.shape[2] - len(cos)
    patches = x[:, :, first:].float()
    a, b = patches.chunk(2, dim=-1)
    patches = patches * cos + torch.cat([-b, a], dim=-1) * sin
    return torch.cat([x[:, :, :first], patches.to(x.dtype)], dim=2)


class DecoderMLP(nn.Module):
    """Two linear layers, as wide as the tokens, with a GELU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.up_proj = nn.Linear(width, width)
        self.down_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x)))


class ScaleOfChannels(nn.Module):
    """Learned scale of each channel, 1 at first."""

    def __init__(self, width: int):
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1
