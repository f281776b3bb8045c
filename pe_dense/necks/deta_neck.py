"""Feature pyramid of the released DETA detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

GROUPS = 32  # GroupNorm groups of every level


@MODELS.register_module()
class DETAPyramid(BaseModule):
    """Multi-scale feature levels of a deformable transformer, computed from one feature map.

    Three levels are computed from the map (p3, p4 and p5 for stride 16): a 2x2 transposed convolution to half the
    channels, the map itself, and max pooling. A 1x1 convolution projects each to the width of the transformer. Further
    levels are downsampled by a 3x3 convolution with stride 2, the first from the pooled map, the others from the
    previous level. GroupNorm follows each.

    Source: DETA (arXiv 2212.06137) on the Perception Encoder (arXiv 2504.13181, section 5.3). Parameter names are those
    of the released detector (``fpn1.0``, ``input_proj.<level>.<0 or 1>``).

    Args:
        in_channels: number of channels C of the map.
        out_channels: number of channels D of every level, a multiple of 32.
        num_levels: number of levels, at least 3.

    Raises:
        ValueError: if ``out_channels`` is not a multiple of 32 or ``num_levels`` is less than 3.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, num_levels: int = 5, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if out_channels % GROUPS:
            raise InputError(
                f"out_channels {out_channels} is not a multiple of {GROUPS}, the number of GroupNorm groups"
            )
        if num_levels < 3:
            raise InputError(f"num_levels must be at least 3, got {num_levels}")
        half = in_channels // 2
        self.fpn1 = nn.Sequential(nn.ConvTranspose2d(in_channels, half, 2, stride=2))
        convolutions = [nn.Conv2d(channels, out_channels, 1) for channels in (half, in_channels, in_channels)]
        for channels in [in_channels, *[out_channels] * (num_levels - 4)][: num_levels - 3]:
            convolutions.append(nn.Conv2d(channels, out_channels, 3, stride=2, padding=1))
        self.input_proj = nn.ModuleList(
            nn.Sequential(convolution, nn.GroupNorm(GROUPS, out_channels)) for convolution in convolutions
        )

    def init_weights(self) -> None:
        """Initialize projections with Xavier uniform weights, zero bias, as in Deformable DETR (arXiv 2010.04159)."""
        super().init_weights()
        for convolution, _ in self.input_proj:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def pyramid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the first three levels before their projection.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C / 2, 2 H, 2 W), (B, C, H, W) and (B, C, H / 2, W / 2).
        """
        return self.fpn1(x), x, F.max_pool2d(x, kernel_size=2, stride=2)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the levels.

        Args:
            maps: feature maps of the backbone, of which the last one is used: (B, C, H, W).

        Returns:
            (B, D, 2 H, 2 W), (B, D, H, W), (B, D, H / 2, W / 2), ..., one per level.
        """
        bases = self.pyramid(maps[-1])
        levels = [project(base) for project, base in zip(self.input_proj, bases, strict=False)]
        for project in self.input_proj[3:]:
            levels.append(project(bases[-1] if len(levels) == 3 else levels[-1]))
        return tuple(levels)
