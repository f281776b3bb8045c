"""Depth on a frozen tower: one probe, or one on each of many layers."""

from __future__ import annotations

from collections.abc import Iterator

from mmseg.models.segmentors import DepthEstimator
from torch import Tensor

from pe_dense.probing import LayerProbe, LayerSweep
from pe_dense.registry import MODELS


@MODELS.register_module()
class DepthProbe(LayerProbe, DepthEstimator):
    """mmseg's ``DepthEstimator`` on a :class:`~pe_dense.probing.FrozenTower`, of which it asks the head's size."""

    test_modes = ("whole", "slide_flip")  # mmseg's 'slide' predicts the whole image at once, too


@MODELS.register_module()
class DepthSweep(LayerSweep, DepthEstimator):
    """A head on each tap, see :class:`~pe_dense.probing.LayerSweep`; which has arguments beside mmseg's."""

    test_modes = ("whole", "slide_flip")

    def encode_decode_all(self, inputs: Tensor, mirrored: bool = False) -> Iterator[tuple[str, Tensor]]:
        """As any sweep's; in mode 'slide_flip' averaged with what mirrored windows give."""
        outputs = super().encode_decode_all(inputs, mirrored)
        if self.test_cfg["mode"] == "whole":
            return outputs
        others = super().encode_decode_all(inputs, not mirrored)
        return ((name, (output + other) / 2) for (name, output), (_, other) in zip(outputs, others, strict=True))
