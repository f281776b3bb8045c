"""Mask R-CNN that knows the released files."""

from __future__ import annotations

from mmdet.models.detectors import MaskRCNN as _MaskRCNN
from torch import Tensor

from pe_dense.detection.released import from_detectron2, is_detectron2
from pe_dense.registry import MODELS


@MODELS.register_module()
class MaskRCNN(_MaskRCNN):
    """As mmdet's; loads the released Mask R-CNNs, which are in Detectron2's layout, besides its own checkpoints."""

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Bring a state dict to this model's names, if it is a released one; see :mod:`pe_dense.detection.released`."""
        return from_detectron2(state, self, source) if is_detectron2(state) else state
