"""A pre-norm transformer block in the published parameter names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.tower.lean import gelu_linear, project_and_turn
from pe_dense.tower.rope import RotaryTable
from pe_dense.tower.variants import Variant
from pe_dense.tower.window import Windows

LAYER_NORM_EPS = 1e-5


class Attention(nn.Module):
    """Multi-head self-attention within groups of tokens, with rotary positions.

    Args:
        width: channels of a token.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: RotaryTable | None) -> Tensor:
        """Args:
            x: (B, G, N, C), G groups of N tokens that attend to each other.
            rope: tables for the N tokens of a group.

        Returns:
            (B, G, N, C).
        """
        q, k, v = self.queries_keys_values(x, rope)
        out = F.scaled_dot_product_attention(q, k, v)
        out = out.transpose(1, 2).reshape(x.shape)
        return self.out_proj(out)

    def queries_keys_values(self, x: Tensor, rope: RotaryTable | None) -> tuple[Tensor, ...]:
        """What attends to what: queries and keys are turned by their tokens' places.

        Args:
            x, rope: as of :meth:`forward`.

        Returns:
            three (B * G, heads, N, head_dim).
        """
        return project_and_turn(x.flatten(0, 1), self.in_proj_weight, self.in_proj_bias, self.heads, rope)


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return gelu_linear(self.c_fc(x), self.c_proj.weight, self.c_proj.bias)


class LayerScale(nn.Module):
    """A learned factor per channel (CaiT, arXiv 2103.17239)."""

    def __init__(self, width: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((width,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops a whole branch per image and scales the kept ones up."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class Block(nn.Module):
    """Attention and MLP, each with LayerNorm before and LayerScale and stochastic depth after.

    Args:
        variant: the tower's architecture.
        drop_path: rate of stochastic depth of this block.
    """

    def __init__(self, variant: Variant, drop_path: float):
        super().__init__()
        width, scale = variant.width, variant.ls_init_value
        self.ln_1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, variant.heads)
        self.ls_1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.ln_2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, variant.mlp_width)
        self.ls_2 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, rope: RotaryTable | None, windows: Windows | None = None) -> Tensor:
        """Args:
            x: (B, G, N, C).
            rope: tables for the tokens of a group (of a window, if ``windows`` is given).
            windows: split into these windows for the attention alone; tokens are then filled up after ``ln_1``, so
                that the added ones take part as keys with the projection's bias, as in the published detectors.

        Returns:
            (B, G, N, C).
        """
        y = self.ln_1(x)
        y = self.attn(y, rope) if windows is None else windows.merge(self.attn(windows.split(y), rope))
        x = x + self.drop_path(self.ls_1(y))
        return x + self.drop_path(self.ls_2(self.mlp(self.ln_2(x))))
