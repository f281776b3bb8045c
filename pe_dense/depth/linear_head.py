"""The linear head for depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from pe_dense.depth.head import LOSS, DepthLoss
from pe_dense.registry import MODELS

_UPSAMPLING = 4
# Of every bin before normalisation: no pixel is left without a gradient.
_FLOOR = 0.1


@MODELS.register_module()
class LinearDepthHead(DepthLoss, BaseDecodeHead):
    """BatchNorm and a 1x1 convolution to shares of depth bins, whose mean is the depth.

    Source: DINOv2's linear depth head (arXiv 2304.07193, appendix B): uniform bins, shares by ReLU, upsampled four
    times before.

    Args:
        width: channels of a map.
        num_taps: maps that are put together.
        min_depth, max_depth: centres of the first and the last bin, in metres.
        num_bins: number of bins.
    """

    def __init__(
        self, width: int, num_taps: int, min_depth: float = 1e-3, max_depth: float = 10.0, num_bins: int = 256
    ):
        channels = width * num_taps
        super().__init__(
            in_channels=channels,
            channels=channels,
            num_classes=num_bins,
            dropout_ratio=0.0,
            loss_decode=LOSS,
            init_cfg=None,
        )
        self.learn_depth(min_depth, max_depth)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """One (B, width, h, w) per tap -> metres (B, 1, 4 h, 4 w)."""
        logits = self.conv_seg(self.norm(torch.cat(list(inputs), dim=1))).float()
        size = [_UPSAMPLING * side for side in logits.shape[-2:]]
        # Bins last in memory: each pixel's lie together for the sums.
        logits = logits.contiguous(memory_format=torch.channels_last)
        shares = resize(logits, size, mode="bilinear", align_corners=False).relu() + _FLOOR  # (B, bins, 4 h, 4 w)
        centres = torch.linspace(self.min_depth, self.max_depth, shares.shape[1], device=shares.device)
        sums = shares.movedim(1, -1) @ torch.stack([centres, torch.ones_like(centres)], dim=1)  # (B, 4 h, 4 w, 2)
        return (sums[..., 0] / sums[..., 1])[:, None]
