"""Mask R-CNN that knows the released files."""

from __future__ import annotations

from mmdet.models.detectors import MaskRCNN as _MaskRCNN
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import MaxIoUAssigner as _MaxIoUAssigner
from torch import Tensor

from pe_dense.detection.convert_detectron2 import from_detectron2, is_detectron2
from pe_dense.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class MaskRCNN(_MaskRCNN):
    """As mmdet's; loads the released Mask R-CNNs, which are in Detectron2's layout, besides its own checkpoints."""

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Bring a state dict to this model's names, if it is a released one; see
        :mod:`pe_dense.detection.convert_detectron2`."""
        return from_detectron2(state, self, source) if is_detectron2(state) else state


@TASK_UTILS.register_module()
class MaxIoUAssigner(_MaxIoUAssigner):
    """As mmdet's, but a low-quality match belongs to the object that the prior overlaps most.

    A prior that is the best one of some object becomes positive even below the threshold. mmdet then trains it on that
    object; Detectron2, and so the published detectors, on the object with which it has the highest IoU.
    """

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign from IoUs.

        Args:
            overlaps: (K, N) of K objects with N priors.
            gt_labels: (K,).
        """
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if len(overlaps):
            positive = result.gt_inds > 0
            best = overlaps.argmax(dim=0)
            result.gt_inds[positive] = best[positive] + 1
            result.labels[positive] = gt_labels[best[positive]]
        return result
