"""Mask R-CNN with the initialization and weights of the published detectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from mmcv.ops import batched_nms as mmcv_batched_nms
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop
from mmdet.models.dense_heads import RPNHead as _RPNHead
from mmdet.models.detectors import MaskRCNN as _MaskRCNN
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import MaxIoUAssigner as _MaxIoUAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.model import caffe2_xavier_init, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from pe_dense.detection.convert_detectron2 import from_detectron2, is_detectron2
from pe_dense.ops.nms import batched_nms
from pe_dense.registry import MODELS, TASK_UTILS, TRANSFORMS
from pe_dense.utils.hub import HubMixin


class _HubMaskRCNN(_MaskRCNN, HubMixin):
    """mmdet's ``MaskRCNN`` with its own signature, which the check of configs reads, and methods for the hub."""

    default_scope = "mmdet"


@MODELS.register_module()
class MaskRCNN(_HubMaskRCNN):
    """Mask R-CNN with Detectron2's head initialization that also loads published Detectron2 checkpoints.

    The mask predictor is initialized with a standard deviation of 0.001 (mmdet: Kaiming), the fully connected layers of
    the box head with ``c2_xavier``, a standard deviation of 0.0089 for 12,544 inputs (mmdet: Xavier, 0.0121).
    """

    def init_weights(self) -> None:
        """Initialize all modules and load the weights given by their ``init_cfg``."""
        if self._is_init:
            return
        super().init_weights()
        for layer in getattr(self.roi_head.bbox_head, "shared_fcs", ()):
            if isinstance(layer, nn.Linear):
                caffe2_xavier_init(layer)
        if self.with_mask and isinstance(self.roi_head.mask_head, FCNMaskHead):
            normal_init(self.roi_head.mask_head.conv_logits, std=0.001)

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Convert a published state dict to this model's keys; return others unchanged. See
        :mod:`pe_dense.detection.convert_detectron2`."""
        return from_detectron2(state, self, source) if is_detectron2(state) else state


@TASK_UTILS.register_module()
class MaxIoUAssigner(_MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner``, with low-quality matches assigned to the object of highest IoU.

    A prior that is the best one of some object becomes positive even below the threshold. mmdet then trains it on that
    object; Detectron2, and so the published detectors, on the object with which it has the highest IoU.
    """

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign objects to priors from their IoUs.

        Args:
            overlaps: (K, N) IoU of K objects with N priors.
            gt_labels: (K,) class labels.
        """
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if len(overlaps):
            positive = result.gt_inds > 0
            best = overlaps.argmax(dim=0)
            result.gt_inds[positive] = best[positive] + 1
            result.labels[positive] = gt_labels[best[positive]]
        return result


@TRANSFORMS.register_module()
class FixedSizeCrop(RandomCrop):
    """Crop images to a fixed size, with one random number for both offsets.

    As Detectron2's ``FixedSizeCrop``, the crop of the published detectors' large-scale jitter: the window moves along
    the diagonal from the top left to the bottom right corner of the image. mmdet's ``RandomCrop`` draws each offset
    separately. Images smaller than the crop are not changed.

    Args:
        crop_size: (width, height) of the crop in pixels, in mmdet's order.
        **kwargs: ``allow_negative_crop``, ``recompute_bbox`` and ``bbox_clip_border`` of mmdet's ``RandomCrop``.
    """

    def __init__(self, crop_size: tuple[int, int], **kwargs) -> None:
        super().__init__(crop_size=crop_size, crop_type="absolute", **kwargs)

    @cache_randomness
    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        vertical, horizontal = np.round(np.multiply(margin, np.random.uniform())).astype(int).tolist()
        return vertical, horizontal


@MODELS.register_module()
class RPNHead(_RPNHead):
    """mmdet's ``RPNHead``, with per-level NMS in float64.

    mmdet shifts boxes by their level in float32, which rounds coordinates and moves overlaps across the threshold.
    It takes the arguments of mmdet's class.
    """

    def _bbox_post_process(self, results: InstanceData, cfg: ConfigDict, *args, **kwargs) -> InstanceData:
        if not is_hard_nms(cfg.nms):
            return super()._bbox_post_process(results, cfg, *args, **kwargs)
        boxes = get_box_tensor(results.bboxes)
        width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
        smallest = cfg.get("min_bbox_size", -1)
        if smallest >= 0:  # mmdet drops small boxes before NMS, too
            large = (width > smallest) & (height > smallest)
            results, boxes = results[large], boxes[large]
        results = results[batched_nms(boxes, results.scores, results.level_ids, cfg.nms["iou_threshold"])]
        return super()._bbox_post_process(results, ConfigDict(cfg, nms=None), *args, **kwargs)


@MODELS.register_module()
class RoIHead(StandardRoIHead):
    """mmdet's ``StandardRoIHead``, with per-class NMS in float64.

    mmdet shifts boxes by their class in float32, which rounds coordinates to 0.1 px for the last of LVIS's 1203 classes
    and moves overlaps across the threshold. It takes the arguments of mmdet's class.
    """

    def init_bbox_head(self, *args, **kwargs) -> None:
        """Build the box head; the gradients of its last convolution keep the memory format of the activations."""
        super().init_bbox_head(*args, **kwargs)
        if convolutions := getattr(self.bbox_head, "shared_convs", ()):
            convolutions[-1].register_forward_hook(_keep_format)

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        rpn_results_list: Sequence[InstanceData],
        rcnn_test_cfg: ConfigDict | None,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detect objects in a batch of B images.

        Args:
            x: levels of the pyramid, each (B, C, h, w).
            batch_img_metas: meta information of each image.
            rpn_results_list: proposals of each image.
            rcnn_test_cfg: ``score_thr``, ``nms`` and ``max_per_img``. None returns the boxes and scores of all
                classes for each proposal, as in mmdet.
            rescale: whether boxes are in px of the original image instead of the resized one.

        Returns:
            per image ``bboxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,), best first.
        """
        if rcnn_test_cfg is None or not is_hard_nms(rcnn_test_cfg.nms):
            return super().predict_bbox(x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale)
        found = super().predict_bbox(x, batch_img_metas, rpn_results_list, None, rescale)
        return [detections(item, rcnn_test_cfg) for item in found]


def _keep_format(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    """Let the gradient of a module's output be channels-last where the output is.

    The linear layer behind it returns another format. On a CPU, the gradient of the activation then takes 25 times as
    long.
    """
    if output.requires_grad and output.is_contiguous(memory_format=torch.channels_last):
        output.register_hook(partial(Tensor.contiguous, memory_format=torch.channels_last))


def detections(found: InstanceData, cfg: ConfigDict) -> InstanceData:
    """Apply the score threshold, NMS and the maximum number of detections to one image.

    Args:
        found: ``bboxes`` (N, 4) or (N, classes * 4) and ``scores`` (N, classes + 1), the background last.
        cfg: ``score_thr``, ``nms`` and ``max_per_img``.

    Returns:
        ``bboxes`` (K, 4), ``scores`` (K,) and ``labels`` (K,), best first.
    """
    scores = found.scores[:, :-1]
    if not len(scores):
        boxes = found.bboxes.new_zeros(0, 4)
        return InstanceData(bboxes=boxes, scores=boxes[:, 0], labels=boxes[:, 0].long())
    boxes = found.bboxes.reshape(len(scores), -1, 4).expand(-1, scores.shape[1], 4)
    proposals, labels = (scores > cfg.score_thr).nonzero(as_tuple=True)
    boxes, scores = boxes[proposals, labels], scores[proposals, labels]
    kept = batched_nms(boxes, scores, labels, cfg.nms["iou_threshold"])
    if cfg.max_per_img > 0:
        kept = kept[: cfg.max_per_img]
    return InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=labels[kept])


def keep_by_class(found: InstanceData, nms: dict) -> InstanceData:
    """Apply per-class NMS to merged detections (``bboxes``, ``scores``, ``labels``), with a head's ``nms`` settings."""
    if is_hard_nms(nms):
        return found[batched_nms(found.bboxes, found.scores, found.labels, nms["iou_threshold"])]
    return found[mmcv_batched_nms(found.bboxes, found.scores, found.labels, nms)[1]]


def is_hard_nms(nms: dict | None) -> bool:
    """Return whether the settings are plain per-class NMS; other types, such as soft-NMS, are left to mmdet."""
    return nms is not None and set(nms) <= {"type", "iou_threshold"} and nms.get("type", "nms") == "nms"
