"""The linear head for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from pe_dense.probing import LayerProbe, LayerSweep
from pe_dense.registry import MODELS
from pe_dense.segmentation.upsampled_loss import upsampled_cross_entropy
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """BatchNorm and a 1x1 convolution on one map, or on several in a row; logits are upsampled bilinearly.

    Source: DINOv2's linear head (arXiv 2304.07193, section 7.4), the Perception Encoder's probe (appendix B.3.3).

    Args:
        width: channels of a map.
        num_taps: maps that are put together.
        num_classes: of the data, K.
        ignore_index: label of pixels without a class.
        class_weight: of the pixels of each class in the loss; None for 1.

    Raises:
        ValueError: for weights of another number of classes.
    """

    def __init__(
        self,
        width: int,
        num_taps: int,
        num_classes: int,
        ignore_index: int = 255,
        class_weight: Sequence[float] | None = None,
    ):
        if class_weight is not None and len(class_weight) != num_classes:
            raise InputError(f"class_weight has {len(class_weight)} entries for {num_classes} classes")
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
        weight = None if class_weight is None else torch.tensor(class_weight)
        self.register_buffer("class_weight", weight, persistent=False)
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
        loss = upsampled_cross_entropy(
            seg_logits, labels, ignore_index=self.ignore_index, class_weight=self.class_weight
        )
        return dict(loss_ce=loss)


@MODELS.register_module()
class SegmentationProbe(LayerProbe, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` on a :class:`~pe_dense.probing.FrozenTower`, of which it asks the head's size."""


@MODELS.register_module()
class SegmentationSweep(LayerSweep, EncoderDecoder):
    """A head on each tap, see :class:`~pe_dense.probing.LayerSweep`; which has arguments beside mmseg's."""

    @staticmethod
    def compact(sample: SegDataSample) -> SegDataSample:
        """Keep the label map (uint8 where it fits), drop the logits."""
        labels, classes = sample.pred_sem_seg.data, len(sample.seg_logits.data)
        sample.pred_sem_seg.data = labels.to(torch.uint8 if classes < 256 else torch.int32)
        del sample.seg_logits
        return sample
