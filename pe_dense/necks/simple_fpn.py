"""Simple feature pyramid of ViTDet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):
    """Normalize every pixel of a (B, C, H, W) map over its channels, in float32 or wider.

    Source: ViTDet (arXiv 2203.16527), where it follows every convolution, with eps 1e-6.
    In configs, use ``norm_cfg=dict(type='pe_dense.LayerNorm2d')``.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6):
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        # Not a view: autograd copies a view several times for an activation in place, as that of mmcv's ConvModule.
        return torch.ops.aten._unsafe_view(y.permute(0, 3, 1, 2), x.shape)


class ConvNorm(nn.Conv2d):
    """Convolution without bias, followed by LayerNorm over channels (parameter names of the published detectors).

    Without ``norm`` it is a convolution with bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not norm)
        self.norm = LayerNorm2d(out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Simple feature pyramid: levels p2..p6, computed from a single feature map.

    Source: ViTDet (arXiv 2203.16527, section 3). For a map of stride s (level ``log2(s)``, p4 for stride 16), the level
    of scale 4 uses two transposed convolutions with LayerNorm and GELU between them, scale 2 uses one, scale 1 none,
    and smaller scales max pooling; a 1x1 and a 3x3 convolution follow, each with LayerNorm and without bias. The last
    level is subsampled from the previous one. Parameter names are those of the published detectors
    (``simfp_2.0.weight``).

    Args:
        in_channels: number of channels of the map.
        out_channels: number of channels of every level, or one number per scale.
        scales: scale of each level relative to the map: 4, 2, 1, 1/2, 1/4, ...; a scale may occur several times.
        stride: stride of the map in pixels, a power of 2; it determines the level names.
        top_level: add a level subsampled from the last one.
        in_index: index of the backbone feature map to use, or one index per scale.
        smooth: follow the 1x1 convolution by a 3x3 one; without it, the levels are for a neck or a head that has
            convolutions of its own.
        norm: LayerNorm after the convolutions and between the transposed ones; without it, the convolutions have a
            bias, as in SAM 3.

    Raises:
        ValueError: for any other scale or stride, or numbers of channels or indices that do not match the scales.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int] = 256,
        scales: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        stride: int = 16,
        top_level: bool = True,
        in_index: int | Sequence[int] = -1,
        smooth: bool = True,
        norm: bool = True,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if stride < 4 or stride & (stride - 1):
            raise InputError(f"stride must be a power of 2 of at least 4, got {stride}")
        self.names = []
        widths = self._per_scale("out_channels", out_channels, scales)
        for scale, width in zip(scales, widths, strict=True):
            level = self._level(in_channels, width, scale, smooth, norm)
            name = f"simfp_{int(math.log2(stride / scale))}"
            repeated = sum(other.split("_level")[0] == name for other in self.names)
            name += f"_level{repeated}" if repeated else ""
            self.add_module(name, level)
            self.names.append(name)
        self.top_level, self.smooth = top_level, smooth
        self.in_index = self._per_scale("in_index", in_index, scales)

    @staticmethod
    def _per_scale(name: str, value: int | Sequence[int], scales: Sequence[float]) -> list[int]:
        values = [value] * len(scales) if isinstance(value, int) else list(value)
        if len(values) != len(scales):
            raise InputError(f"{name} has {len(values)} entries for {len(scales)} scales")
        return values

    @staticmethod
    def _level(channels: int, out_channels: int, scale: float, smooth: bool, norm: bool) -> nn.Sequential:
        half, quarter = channels // 2, channels // 4
        if scale == 4.0:
            layers = [
                nn.ConvTranspose2d(channels, half, 2, stride=2),
                *([LayerNorm2d(half)] if norm else []),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ]
            channels = quarter
        elif scale == 2.0:
            layers = [nn.ConvTranspose2d(channels, half, 2, stride=2)]
            channels = half
        elif scale == 1.0:
            layers = []
        elif 0 < scale < 1 and math.log2(scale).is_integer():
            side = int(1 / scale)
            # Rounded up below 1/2, so that no level of a small image is empty.
            layers = [nn.MaxPool2d(side, stride=side, ceil_mode=side > 2)]
        else:
            raise InputError(f"scale {scale} is not one of 4, 2, 1, 1/2, 1/4, ...")
        layers.append(ConvNorm(channels, out_channels, 1, norm))
        return nn.Sequential(*layers, *([ConvNorm(out_channels, out_channels, 3, norm)] if smooth else []))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the levels.

        Args:
            maps: feature maps of the backbone, each (B, C, H, W).

        Returns:
            one (B, out_channels, H * scale, W * scale) per scale, then the top level, half the size of the last one.
        """
        levels = [getattr(self, name)(maps[index]) for name, index in zip(self.names, self.in_index, strict=True)]
        if not self.smooth:  # heads for convolutional backbones may use `view`, which needs contiguous memory
            levels = [level.contiguous() for level in levels]
        if self.top_level:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)
