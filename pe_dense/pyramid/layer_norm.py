"""LayerNorm over the channels of a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pe_dense.registry import MODELS


@MODELS.register_module()
class LayerNorm2d(nn.LayerNorm):
    """Normalise every pixel of a (B, C, H, W) map over its channels, in float32 or wider.

    Source: ViTDet's detectors (arXiv 2203.16527), where it stands after every convolution, with eps 1e-6.
    In configs it is ``norm_cfg=dict(type='pe_dense.LayerNorm2d')``.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6):
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
