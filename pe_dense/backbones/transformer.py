"""Pre-norm transformer with global and window attention, and attention pooling (published parameter names)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pe_dense.backbones.attention import (
    RotaryTable,
    Windows,
    attend,
    axis_positions,
    rotary_table,
    trains_in_bfloat16_on_cpu,
    with_unrotated_tokens,
)
from pe_dense.backbones.memory_efficient import gelu_linear, qkv_with_rope, split_with_rope
from pe_dense.backbones.pe_configs import PEConfig

LAYER_NORM_EPS = 1e-5
DROP_PATH_SCHEDULES = ("constant", "linear")
# Maximum number of cached rotary tables. A table of a 64 x 64 grid takes 1.5 MB.
MAX_ROTARY_TABLES = 16


class Attention(nn.Module):
    """Multi-head self-attention within groups of tokens, with rotary position embedding.

    As in ``nn.MultiheadAttention``, the projection to queries, keys and values has the parameters ``in_proj_weight``
    and ``in_proj_bias``; adapters that wrap linear layers, such as LoRA, need :meth:`use_linear_in_proj`.

    Args:
        width: channels of a token.
        heads: number of heads.
        memory_efficient: use the custom function of :mod:`~pe_dense.backbones.memory_efficient` where possible.
    """

    def __init__(self, width: int, heads: int, memory_efficient: bool = True):
        super().__init__()
        self.heads = heads
        self.memory_efficient = memory_efficient
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.in_proj: nn.Module | None = None

    def use_linear_in_proj(self) -> None:
        """Move ``in_proj_weight`` and ``in_proj_bias`` into a linear layer, ``in_proj``, that adapters can wrap."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        del self.in_proj_weight, self.in_proj_bias
        with torch.device("meta"):
            self.in_proj = nn.Linear(weight.shape[1], weight.shape[0])
        self.in_proj.weight, self.in_proj.bias = weight, bias

    def forward(self, x: Tensor, rope: RotaryTable | None, attn_mask: Tensor | None = None) -> Tensor:
        """Apply attention within each group.

        Args:
            x: (B, G, N, C), G groups of N tokens that attend to each other.
            rope: rotary table for the N tokens of a group.
            attn_mask: (B * G, 1, N, N), bool, false where a token (row) does not attend to another (column).

        Returns:
            (B, G, N, C).
        """
        q, k, v = self.qkv(x, rope)
        out = attend(q, k, v, attn_mask, memory_efficient=self.memory_efficient)
        out = out.transpose(1, 2).reshape(x.shape)
        return self.out_proj(out)

    def qkv(self, x: Tensor, rope: RotaryTable | None) -> tuple[Tensor, ...]:
        """Compute queries, keys and values; rotary position embedding is applied to queries and keys.

        Args:
            x, rope: see :meth:`forward`.

        Returns:
            queries, keys and values, each (B * G, heads, N, head_dim).
        """
        if self.in_proj is not None:
            return split_with_rope(self.in_proj(x.flatten(0, 1)), self.heads, rope)
        return qkv_with_rope(
            x.flatten(0, 1),
            self.in_proj_weight,
            self.in_proj_bias,
            self.heads,
            rope,
            memory_efficient=self.memory_efficient,
        )


class MLP(nn.Module):
    """Two linear layers with a GELU activation between them.

    Args:
        width: channels of a token.
        hidden: channels between the layers.
        memory_efficient: use the custom function of :mod:`~pe_dense.backbones.memory_efficient` where possible.
    """

    def __init__(self, width: int, hidden: int, memory_efficient: bool = True):
        super().__init__()
        self.memory_efficient = memory_efficient
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return gelu_linear(self.c_fc(x), self.c_proj, memory_efficient=self.memory_efficient)


class LayerScale(nn.Module):
    """Learned scale per channel (CaiT, arXiv 2103.17239)."""

    def __init__(self, width: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((width,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drop a residual branch per image and rescale the remaining ones."""

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
    """Transformer block: attention and MLP, each with LayerNorm before and LayerScale and stochastic depth after it.

    Args:
        config: architecture of the tower.
        drop_path: stochastic depth rate of this block, sampled separately for its two branches.
        memory_efficient: see :class:`Attention` and :class:`MLP`.
    """

    def __init__(self, config: PEConfig, drop_path: float, memory_efficient: bool = True):
        super().__init__()
        width, scale = config.width, config.ls_init_value
        self.ln_1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, config.heads, memory_efficient)
        self.ls_1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.ln_2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, config.mlp_width, memory_efficient)
        self.ls_2 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        rope: RotaryTable | None,
        windows: Windows | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Apply the block.

        Args:
            x: (B, G, N, C).
            rope: rotary table for the tokens of a group (of a window, if ``windows`` is given).
            windows: window partition for the attention only; padding is then added after ``ln_1``, so that padding
                tokens are keys with the value of the projection's bias, as in the published detectors.
            attn_mask: see :class:`Attention`; without windows only.

        Returns:
            (B, G, N, C).
        """
        y = self.ln_1(x)
        y = (
            self.attn(y, rope, attn_mask)
            if windows is None
            else windows.window_unpartition(self.attn(windows.window_partition(y), rope))
        )
        x = x + self.drop_path(self.ls_1(y))
        return x + self.drop_path(self.ls_2(self.mlp(self.ln_2(x))))


class Transformer(nn.Module):
    """Sequence of transformer blocks with window or global attention.

    Args:
        config: architecture of the tower.
        window_size: side of a window in tokens; None for global attention everywhere.
        global_blocks: numbers of the blocks with global attention even if ``window_size`` is set.
        rope_reference_grid: range of rotary positions in patches, None for integers.
        rope_native_grid: number of patches along an axis that span that range in global blocks.
        with_cp: activation checkpointing of each block in training.
        drop_path_schedule: 'constant' for the rate of the config in every block, 'linear' for a rate that increases
            from 0 in the first block to that of the config in the last.
        memory_efficient: see :class:`Block`.
    """

    def __init__(
        self,
        config: PEConfig,
        *,
        window_size: int | None,
        global_blocks: Collection[int],
        rope_reference_grid: int | None,
        rope_native_grid: int,
        with_cp: bool,
        drop_path_schedule: str,
        memory_efficient: bool,
    ):
        super().__init__()
        rates = [config.drop_path] * config.layers
        if drop_path_schedule == "linear":
            rates = [rate * i / max(config.layers - 1, 1) for i, rate in enumerate(rates)]
        self.resblocks = nn.ModuleList(Block(config, rate, memory_efficient) for rate in rates)
        self.config = config
        self.window_size = window_size
        self.global_blocks = frozenset(global_blocks)
        self.rope_reference_grid = rope_reference_grid
        self.rope_native_grid = rope_native_grid
        self.with_cp = with_cp
        self._tables: OrderedDict[tuple, RotaryTable] = OrderedDict()

    def iter_intermediates(
        self, x: Tensor, grid: tuple[int, int], indices: Collection[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Run the blocks and yield each requested output as soon as it is computed; later blocks do not run.

        Args:
            x: (B, N, C), the class token first if the tower has one, then patches in row-major order.
            grid: rows and columns of patches.
            indices: requested block numbers, from 0.

        Yields:
            (block number, tokens (B, N, C)) in increasing order of the blocks.
        """
        windows = Windows(*grid, self.window_size) if self.window_size else None
        tables = {False: self._rotary_table(grid, False, x.device)}
        if windows is not None:
            tables[True] = self._rotary_table(grid, True, x.device)
        x = x[:, None]  # (B, 1, N, C)
        in_windows = False
        for index, block in enumerate(self.resblocks[: max(indices) + 1]):
            windowed = windows is not None and index not in self.global_blocks
            # If the window size divides the grid, tokens are partitioned once for consecutive window blocks. Otherwise
            # the grid is padded, and padding tokens should be computed in the attention only.
            if windowed and windows.fits and not in_windows:
                x, in_windows = windows.window_partition(x), True
            elif not windowed and in_windows:
                x, in_windows = windows.window_unpartition(x), False
            x = self._run(block, x, tables[windowed], windows if windowed and not in_windows else None)
            if index in indices:
                yield index, (windows.window_unpartition(x) if in_windows else x)[:, 0]

    def run_block(self, index: int, x: Tensor, grid: tuple[int, int], attn_mask: Tensor | None) -> Tensor:
        """Run one block with global attention; see :meth:`Backbone.run_block` for the arguments and the result."""
        tokens = int(self.config.use_cls_token) + grid[0] * grid[1]
        rope = with_unrotated_tokens(self._rotary_table(grid, False, x.device), x.shape[1] - tokens)
        return self._run(self.resblocks[index], x[:, None], rope, None, attn_mask)[:, 0]

    def _run(self, block: Block, *arguments) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def rotary_table(self, grid: tuple[int, int], device: torch.device) -> RotaryTable | None:
        """Return the rotary table of all tokens of a grid, for global blocks; None without rotary positions."""
        return self._rotary_table(grid, False, device)

    def _rotary_table(self, grid: tuple[int, int], windowed: bool, device: torch.device) -> RotaryTable | None:
        """Return the cached rotary table of a window or of the whole grid."""
        if not self.config.use_rope2d:
            return None
        if torch.compiler.is_compiling():  # part of the graph, where sizes may be symbols
            return self._make_table(grid, windowed, device)
        # Tensors created in inference mode cannot be used in training later, so they are cached separately.
        key = (None if windowed else grid, device, torch.is_inference_mode_enabled())
        if key not in self._tables:
            self._tables[key] = self._make_table(grid, windowed, device)
            while len(self._tables) > MAX_ROTARY_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def _make_table(self, grid: tuple[int, int], windowed: bool, device: torch.device) -> RotaryTable:
        with_cls = self.config.use_cls_token
        rows, columns = (
            axis_positions(
                length,
                native=self.window_size if windowed else self.rope_native_grid,
                reference=self.rope_reference_grid,
                offset=int(with_cls),
            )
            for length in ((self.window_size, self.window_size) if windowed else grid)
        )
        table = rotary_table(rows, columns, self.config.head_dim, with_cls_token=with_cls)
        return RotaryTable(*(t.to(device) for t in table))


class AttentionPool(nn.Module):
    """Attention pooling: cross-attention from one learned query to all tokens, then an MLP.

    Parameter names are those of the published towers.

    Args:
        width: channels of a token.
        heads: attention heads.
    """

    MLP_RATIO = 4  # of every published tower, including G, whose blocks have a hidden width of 8960

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layernorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = MLP(width, width * self.MLP_RATIO)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool tokens: (B, N, C) -> (B, C)."""
        if trains_in_bfloat16_on_cpu(tokens) and type(self.attn) is nn.MultiheadAttention:
            pooled = self._attend(tokens)
        else:
            query = self.probe.expand(tokens.shape[0], -1, -1)
            pooled = self.attn(query, tokens, tokens, need_weights=False)[0]
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]

    def _attend(self, tokens: Tensor) -> Tensor:
        """Compute what ``self.attn`` does, with fewer copies and the faster attention: (B, N, C) -> (B, 1, C)."""
        width, weight, bias = tokens.shape[-1], self.attn.in_proj_weight, self.attn.in_proj_bias
        query = F.linear(self.probe, weight[:width], bias[:width]).expand(len(tokens), -1, -1)
        keys_values = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=2)
        q, k, v = (x.unflatten(2, (self.attn.num_heads, -1)).transpose(1, 2) for x in (query, *keys_values))
        return self.attn.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))

    def forward_tokens(self, tokens: Tensor, mix: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Apply the pooling to each token separately, as if it were the only key, with attention weight 1.

        Args:
            tokens: (B, N, C).
            mix: function applied to the values (B, N, C) before the output projection, for example a weighted average;
                it may change N.

        Returns:
            (B, N, C).
        """
        width = tokens.shape[-1]
        values = F.linear(tokens, self.attn.in_proj_weight[2 * width :], self.attn.in_proj_bias[2 * width :])
        pooled = self.attn.out_proj(values if mix is None else mix(values))
        return pooled + self.mlp(self.layernorm(pooled))
