"""Linear head and models for semantic segmentation probes."""

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
    """Linear segmentation head: BatchNorm and a 1x1 convolution; logits are upsampled bilinearly.

    Source: DINOv2's linear head (arXiv 2304.07193, section 7.4), the Perception Encoder's probe (appendix B.3.3).

    Args:
        width: number of channels of a map.
        num_taps: number of maps, which are concatenated.
        num_classes: number of classes K.
        ignore_index: label of pixels to ignore.
        class_weight: weight of each class in the loss; None for equal weights.

    Raises:
        ValueError: if the length of ``class_weight`` is not ``num_classes``.
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
            loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),  # unused, but required by mmseg
            init_cfg=None,
        )
        weight = None if class_weight is None else torch.tensor(class_weight)
        self.register_buffer("class_weight", weight, persistent=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute logits (B, K, h, w) from a list of maps (B, width, h, w)."""
        return self.conv_seg(self.norm(torch.cat(list(inputs), dim=1)))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the cross-entropy at full resolution.

        Args:
            seg_logits: (B, K, h, w).
            batch_data_samples: data samples with ``gt_sem_seg`` of the same size.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        loss = upsampled_cross_entropy(
            seg_logits, labels, ignore_index=self.ignore_index, class_weight=self.class_weight
        )
        return dict(loss_ce=loss)


@MODELS.register_module()
class SegmentationProbe(LayerProbe, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` on a :class:`~pe_dense.backbones.FrozenTower`, which determines the head size."""


@MODELS.register_module()
class SegmentationSweep(LayerSweep, EncoderDecoder):
    """Layer sweep for segmentation; see :class:`~pe_dense.probing.LayerSweep` for arguments in addition to mmseg's."""

    @staticmethod
    def compact(sample: SegDataSample) -> SegDataSample:
        """Keep the label map (as uint8 if possible) and remove the logits."""
        labels, classes = sample.pred_sem_seg.data, len(sample.seg_logits.data)
        sample.pred_sem_seg.data = labels.to(torch.uint8 if classes < 256 else torch.int32)
        del sample.seg_logits
        return sample
