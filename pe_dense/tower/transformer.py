"""The stack of blocks: which attend in windows, in what order their tokens lie, and where they are tapped."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pe_dense.tower.block import Block
from pe_dense.tower.rope import RotaryTable, axis_positions, rotary_table
from pe_dense.tower.variants import Variant
from pe_dense.tower.window import Windows


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
