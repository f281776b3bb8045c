"""Mask R-CNN with the initialization and the released weights of the published detectors."""

from __future__ import annotations

from mmdet.models.detectors import MaskRCNN as _MaskRCNN
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import MaxIoUAssigner as _MaxIoUAssigner
from mmengine.model import caffe2_xavier_init, normal_init
from torch import Tensor, nn

from pe_dense.detection.convert_detectron2 import from_detectron2, is_detectron2
from pe_dense.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class MaskRCNN(_MaskRCNN):
    """mmdet's Mask R-CNN that initializes its heads as Detectron2 and loads the released files in its layout, too.

    The mask predictor is drawn with a standard deviation of 0.001 (mmdet: Kaiming), the fully connected layers of the
    box head by ``c2_xavier``, with one of 0.0089 for 12,544 inputs (mmdet: Xavier, 0.0121).
    """

    def init_weights(self) -> None:
        """Initialize all parts, and load the weights that their ``init_cfg`` names."""
        if self._is_init:
            return
        super().init_weights()
        for layer in getattr(self.roi_head.bbox_head, "shared_fcs", ()):
            if isinstance(layer, nn.Linear):
                caffe2_xavier_init(layer)
        if self.with_mask and isinstance(self.roi_head.mask_head, FCNMaskHead):
            normal_init(self.roi_head.mask_head.conv_logits, std=0.001)

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
