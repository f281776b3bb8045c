"""Test-time augmentation of Mask R-CNN: multi-scale and flip, with merged boxes and averaged masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from pe_dense.detection.mask_rcnn import keep_by_class
from pe_dense.registry import MODELS


@dataclass
class _View:
    """A batch of images in one size and orientation: its samples, feature maps and detections."""

    samples: list[DetDataSample]
    features: tuple[Tensor, ...]
    found: list[InstanceData]


@MODELS.register_module(name=["MaskRCNNTTAModel", "TestTimeMaskRCNN"])
class MaskRCNNTTAModel(BaseTTAModel):
    """Test-time augmentation of Mask R-CNN: merge the boxes of all views by NMS and average their masks.

    Score threshold, NMS and number of detections come from the detector's ``test_cfg``, for each view and for the
    merged detections.

    Source: Mask R-CNN (arXiv 1703.06870, appendix B), as in Detectron2's ``GeneralizedRCNNWithTTA``.

    Args:
        module: the detector, a :class:`~pe_dense.detection.MaskRCNN`.
    """

    __test__ = False  # keeps pytest from collecting the class because of its alias TestTimeMaskRCNN

    def __init__(self, module: dict):
        super().__init__(module)

    @torch.no_grad()
    def test_step(self, data: dict) -> list[DetDataSample]:
        """Detect objects in a batch.

        Args:
            data: ``inputs`` and ``data_samples``: lists over views of lists over images, each sample with
                ``ori_shape``, ``img_shape``, ``scale_factor``, ``flip`` and ``flip_direction``.

        Returns:
            a sample per image with ``pred_instances`` in px of the original image, best first.
        """
        views = [
            self._look(dict(inputs=inputs, data_samples=samples))
            for inputs, samples in zip(data["inputs"], data["data_samples"], strict=True)
        ]
        merged = [self._merge_boxes(views, image) for image in range(len(views[0].samples))]
        if self.module.with_mask:
            self._add_masks(views, merged)
        samples = views[0].samples
        for sample, found in zip(samples, merged, strict=True):
            sample.pred_instances = found
        return samples

    def merge_preds(self, data_samples_list: Sequence[Sequence[DetDataSample]]) -> list[DetDataSample]:
        """Not supported: masks are averaged before they are pasted into images, so ``test_step`` merges the views."""
        raise NotImplementedError("call test_step: it merges the masks of all views before they are pasted into images")

    def _look(self, data: dict) -> _View:
        data = self.module.data_preprocessor(data, False)
        samples = data["data_samples"]
        features = self.module.extract_feat(data["inputs"])
        proposals = self.module.rpn_head.predict(features, samples, rescale=False)
        found = self.module.roi_head.predict_bbox(
            features, [sample.metainfo for sample in samples], proposals, self.module.roi_head.test_cfg, rescale=True
        )
        return _View(samples, features, found)

    def _merge_boxes(self, views: Sequence[_View], image: int) -> InstanceData:
        upright = [self._flip(view.found[image], view.samples[image]) for view in views]
        found = InstanceData.cat(upright)
        test_cfg = self.module.roi_head.test_cfg
        if len(found):
            found = keep_by_class(found, test_cfg.nms)
        return found[: test_cfg.max_per_img]

    def _add_masks(self, views: Sequence[_View], merged: Sequence[InstanceData]) -> None:
        """Add masks (N, H, W) to each image's detections, from the mean of all views' probabilities."""
        roi_head = self.module.roi_head
        counts = [len(found) for found in merged]
        if sum(counts):
            mean = sum(self._mask_probabilities(view, merged) for view in views) / len(views)
        else:
            mean = merged[0].bboxes.new_zeros(0, 1, 1, 1)
        roi_head.mask_head.predict_by_feat(
            mean.logit().split(counts),
            merged,
            [dict(sample.metainfo, scale_factor=(1.0, 1.0)) for sample in views[0].samples],
            roi_head.test_cfg,
            rescale=True,
        )

    def _mask_probabilities(self, view: _View, merged: Sequence[InstanceData]) -> Tensor:
        """Compute a view's unflipped mask probabilities of merged boxes: (boxes of all images, classes, 28, 28)."""
        boxes, flips = [], []
        for found, sample in zip(merged, view.samples, strict=True):
            there = self._flip(found, sample).bboxes
            boxes.append(there * there.new_tensor(sample.scale_factor).repeat(2))
            flips += [sample.flip_direction if sample.flip else None] * len(found)
        logits = self.module.roi_head._mask_forward(view.features, bbox2roi(boxes))["mask_preds"]
        axes = {None: (), "horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}
        return torch.stack([one.flip(axes[flip]) for one, flip in zip(logits.sigmoid(), flips, strict=True)])

    @staticmethod
    def _flip(found: InstanceData, sample: DetDataSample) -> InstanceData:
        """Flip boxes between the original image and a flipped view; the operation is its own inverse."""
        boxes = found.bboxes
        if sample.flip:
            boxes = bbox_flip(boxes, sample.ori_shape, sample.flip_direction)
        return InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
