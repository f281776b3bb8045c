"""What depth heads have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.utils import resize
from torch import Tensor

# Eigen et al., arXiv 1406.2283: scale-invariant, of logarithms.
LOSS = dict(type="mmseg.SiLogLoss")


class DepthLoss:
    """Mixin for mmseg's heads with :data:`LOSS` whose output is a map of metres.

    The loss is taken at the size of the true map. Pixels without depth (0) do not count, nor
    does an image that has no other.
    """

    def learn_depth(self, min_depth: float, max_depth: float) -> None:
        """Set the range of depth in metres, to be called after the head's constructor.

        Raises:
            ValueError: if it is no range of positive numbers.
        """
        if not 0.0 < min_depth < max_depth:
            raise ValueError(f"min_depth {min_depth} and max_depth {max_depth} are no range of positive depths")
        self.min_depth, self.max_depth = min_depth, max_depth
        self.num_classes = self.out_channels = 1

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            seg_logits: predicted metres, (B, 1, h, w).
            batch_data_samples: with ``gt_depth_map`` in metres, of one size.
        """
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])  # (B, 1, H, W)
        known = (truth > 0).flatten(1).any(1)
        depth = resize(seg_logits[known], truth.shape[-2:], mode="bilinear", align_corners=False)
        if not known.any():
            return dict(loss_silog=0.0 * seg_logits.sum())
        return dict(loss_silog=self.loss_decode(depth, truth[known]))
