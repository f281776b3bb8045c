"""The stack of blocks: which attend in windows, in what order their tokens lie, and where they are tapped."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pe_dense.backbones.attention import RotaryTable, Windows, axis_positions, rotary_table
from pe_dense.backbones.memory_efficient import gelu_linear, project_and_turn
from pe_dense.backbones.pe_configs import Variant

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


class Transformer(nn.Module):
    """Blocks, windowed or global.

    Args:
        variant: the tower's architecture.
        window_size: side of a window in tokens; None for global attention everywhere.
        global_blocks: numbers of the blocks that attend globally all the same.
        rope_reference_grid: range of rotary positions in patches, None for integers.
        rope_native_grid: patches along an axis that span that range in global blocks.
        with_cp: checkpoint each block's activations in training.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        window_size: int | None,
        global_blocks: Collection[int],
        rope_reference_grid: int | None,
        rope_native_grid: int,
        with_cp: bool,
    ):
        super().__init__()
        rates = [variant.drop_path * i / max(variant.layers - 1, 1) for i in range(variant.layers)]
        self.resblocks = nn.ModuleList(Block(variant, rate) for rate in rates)
        self.variant = variant
        self.window_size = window_size
        self.global_blocks = frozenset(global_blocks)
        self.rope_reference_grid = rope_reference_grid
        self.rope_native_grid = rope_native_grid
        self.with_cp = with_cp
        self._known_tables: dict[tuple, dict[bool, RotaryTable]] = {}

    def iter_taps(self, x: Tensor, grid: tuple[int, int], taps: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        """Run the blocks and give each tap as soon as it is there; blocks after the last tap do not run.

        Args:
            x: (B, N, C), a class token first where there is one, then patches in row-major order.
            grid: rows and columns of patches.
            taps: block numbers from 0.

        Yields:
            (block number, tokens (B, N, C)) in rising order of the blocks.
        """
        windows = Windows(*grid, self.window_size) if self.window_size else None
        tables = self._rotary_tables(grid, x.device)
        x = x[:, None]  # (B, 1, N, C)
        in_windows = False
        for index, block in enumerate(self.resblocks[: max(taps) + 1]):
            windowed = windows is not None and index not in self.global_blocks
            # Windows that divide the grid are entered and left once for a run of windowed blocks. Others fill the
            # grid up, and only the attention should pay for the added tokens.
            if windowed and windows.fits and not in_windows:
                x, in_windows = windows.split(x), True
            elif not windowed and in_windows:
                x, in_windows = windows.merge(x), False
            arguments = (x, tables[windowed], windows if windowed and not in_windows else None)
            if self.with_cp and self.training and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
            if index in taps:
                yield index, (windows.merge(x) if in_windows else x)[:, 0]

    def _rotary_tables(self, grid: tuple[int, int], device: torch.device) -> dict[bool, RotaryTable | None]:
        """Tables of the tokens that attend to each other, in global (False) and in windowed blocks (True)."""
        kinds = (False, True) if self.window_size else (False,)
        if not self.variant.use_rope2d:
            return dict.fromkeys(kinds)
        if torch.compiler.is_compiling():  # part of the graph, where sizes may be symbols
            return {windowed: self._make_table(grid, windowed, device) for windowed in kinds}
        # Made once per grid and device. Tensors made in inference mode can't take part in training later, so they are
        # kept apart.
        key = (grid, device, torch.is_inference_mode_enabled())
        if key not in self._known_tables:
            self._known_tables[key] = {windowed: self._make_table(grid, windowed, device) for windowed in kinds}
        return self._known_tables[key]

    def _make_table(self, grid: tuple[int, int], windowed: bool, device: torch.device) -> RotaryTable:
        with_cls = self.variant.use_cls_token
        rows, columns = (
            axis_positions(
                length,
                native=self.window_size if windowed else self.rope_native_grid,
                reference=self.rope_reference_grid,
                offset=int(with_cls),
            )
            for length in ((self.window_size, self.window_size) if windowed else grid)
        )
        table = rotary_table(rows, columns, self.variant.head_dim, with_cls_token=with_cls)
        return RotaryTable(*(t.to(device) for t in table))


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
