"""The linear head for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from pe_dense.registry import MODELS
from pe_dense.segmentation.upsampled_loss import upsampled_cross_entropy


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """BatchNorm and a 1x1 convolution on one map, or on several in a row; logits are upsampled bilinearly.

    Source: DINOv2's linear head (arXiv 2304.07193, section 7.4), the Perception Encoder's probe (appendix B.3.3).

    Args:
        width: channels of a map.
        num_taps: maps that are put together.
        num_classes: of the data, K.
        ignore_index: label of pixels without a class.
    """

    def __init__(self, width: int, num_taps: int, num_classes: int, ignore_index: int = 255):
        channels = width * num_taps
        super().__init__(
            in_channels=channels,
            channels=channels,
            num_classes=num_classes,
            out_channels=num_classes,
            dropout_ratio=0.0,
            ignore_index=ignore_index,
            loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),  # unused, but mmseg wants one
            init_cfg=None,
        )
        self.norm = nn.BatchNorm2d(channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """One (B, width, h, w) per tap -> logits (B, K, h, w)."""
        return self.conv_seg(self.norm(torch.cat(list(inputs), dim=1)))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Cross-entropy at full resolution.

        Args:
            seg_logits: (B, K, h, w).
            batch_data_samples: with ``gt_sem_seg``, of one size.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        return dict(loss_ce=upsampled_cross_entropy(seg_logits, labels, ignore_index=self.ignore_index))
