"""Test-time augmentation of DETA: several sizes with and without a flip, merged by soft-NMS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from pe_dense.detection.deta.head import check_suppression, suppress
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module(name=["DETATTAModel", "TestTimeDETA"])
class DETATTAModel(BaseTTAModel):
    """Detect in several views of an image and merge the detections.

    The best detections of each view pass NMS on their own, those with a small area are dropped from the views of small
    size, and NMS is applied once more to the detections of all views together.

    Source: the Perception Encoder's detector (arXiv 2504.13181, section 5.3, and its published code).

    Args:
        module: the detector, a :class:`~pe_dense.detection.deta.DETA`; its own NMS is not used.
        min_sides: for each size of the views, largest first, a length in px of the original image. Boxes of such views
            are kept if their area is larger than that of a square of this length.
        num_queries: number of queries of the detector; more than in training find more objects.
        pre_nms: number of (query, class) pairs of a view that pass to NMS, those with the best scores.
        nms: ``type`` 'nms' or 'soft_nms' and its arguments, for each view and for all views together; None only sorts.
        max_per_img: number of detections that are kept; None keeps all, as the published code does, since the COCO
            evaluator itself takes the best 100 of each class.

    Raises:
        InputError: if the ``type`` of ``nms`` is unknown.
    """

    __test__ = False  # keeps pytest from collecting the class

    def __init__(
        self,
        module: dict,
        min_sides: Sequence[float],
        num_queries: int = 2000,
        pre_nms: int = 2000,
        nms: dict | None = None,
        max_per_img: int | None = None,
    ):
        check_suppression(nms)
        test_cfg = dict(module.get("test_cfg") or {}, pre_nms=pre_nms, nms=None, max_per_img=pre_nms)
        super().__init__(dict(module, num_queries=num_queries, test_cfg=test_cfg))
        self.min_sides = [float(side) for side in min_sides]
        self.nms = nms
        self.max_per_img = max_per_img

    def merge_preds(self, data_samples_list: Sequence[Sequence[DetDataSample]]) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: per image its views, with ``pred_instances`` in px of the original image and, in their
                meta information, ``scale``, ``ori_shape``, ``flip`` and ``flip_direction``.

        Returns:
            one sample per image, with the merged ``pred_instances``, best first.

        Raises:
            InputError: if the number of different view sizes is not the length of ``min_sides``.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[DetDataSample]) -> DetDataSample:
        sizes = sorted({max(view.scale) for view in views}, reverse=True)
        if len(sizes) != len(self.min_sides):
            raise InputError(
                f"min_sides has {len(self.min_sides)} entries, but the views have {len(sizes)} sizes: {sizes}; give "
                "one entry for each size"
            )
        min_side = dict(zip(sizes, self.min_sides, strict=True))
        found = InstanceData.cat([self.from_view(view, min_side[max(view.scale)]) for view in views])
        merged = views[0].new()
        merged.pred_instances = suppress(found, self.nms)[: self.max_per_img]
        return merged

    def from_view(self, view: DetDataSample, min_side: float) -> InstanceData:
        """Return the detections of one view after NMS and the area limit, flipped back.

        Args:
            view: data sample with ``pred_instances`` in px of the original image.
            min_side: boxes with an area of at most ``min_side ** 2`` are dropped, and so are those without an area.
        """
        found = view.pred_instances
        boxes = found.bboxes
        if view.flip:
            boxes = bbox_flip(boxes, view.ori_shape, view.flip_direction)
        found = suppress(InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels), self.nms)
        width, height = (found.bboxes[:, 2:] - found.bboxes[:, :2]).unbind(1)
        return found[torch.gt(width * height, min_side**2)]
