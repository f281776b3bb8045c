"""Semantic segmentation on a frozen tower: one probe, or one on each of many layers."""

from __future__ import annotations

import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

from pe_dense.probing import LayerProbe, LayerSweep
from pe_dense.registry import MODELS


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
