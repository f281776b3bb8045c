"""Test-time augmentation of DETA: several sizes and mirrored images, merged by NMS."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from pe_dense.detection.deta.head import check_suppression, suppress
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError


@MODELS.register_module()
class TestTimeDETA(BaseTTAModel):
    """Detects in several views of an image and merges what it finds.

    The views give their detections before NMS, which sees those of all views together. Small boxes of views that show
    the image small may be left out.

    Source: the Perception Encoder's detector (arXiv 2504.13181, section 5.3).

    Args:
        module: the detector, a :class:`~pe_dense.detection.deta.DETA`; its own NMS is left out.
        min_sides: for each size of the views, largest first, the shortest side in px of the original image that a box
            of such views must have.
        num_queries: of the detector; more than it was trained with find more.
        pre_nms: boxes of all views together that NMS sees, the best ones; and of each view.
        nms: ``type`` 'nms' or 'soft_nms' and its arguments; None only sorts.
        max_per_img: detections that are kept.

    Raises:
        ValueError: for another suppression.
    """

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(
        self,
        module: dict,
        min_sides: Sequence[float],
        num_queries: int = 2000,
        pre_nms: int = 10_000,
        nms: dict | None = None,
        max_per_img: int = 100,
    ):
        check_suppression(nms)
        test_cfg = dict(module.get("test_cfg") or {}, pre_nms=pre_nms, nms=None, max_per_img=pre_nms)
        super().__init__(dict(module, num_queries=num_queries, test_cfg=test_cfg))
        self.min_sides = [float(side) for side in min_sides]
        self.pre_nms = pre_nms
        self.nms = nms
        self.max_per_img = max_per_img

    def merge_preds(self, data_samples_list: Sequence[Sequence[DetDataSample]]) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: per image its views, with ``pred_instances`` in px of the original image and, among
                their meta information, ``scale``, ``ori_shape``, ``flip`` and ``flip_direction``.

        Returns:
            one per image.

        Raises:
            ValueError: for views of another number of sizes than ``min_sides`` has.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[DetDataSample]) -> DetDataSample:
        sizes = sorted({max(view.scale) for view in views}, reverse=True)
        if len(sizes) != len(self.min_sides):
            raise InputError(
                f"min_sides tells of {len(self.min_sides)} sizes of views; there are {len(sizes)}: {sizes}"
            )
        min_side = dict(zip(sizes, self.min_sides, strict=True))
        found = InstanceData.cat([self._upright(view, min_side[max(view.scale)]) for view in views])
        found = found[found.scores.argsort(descending=True)[: self.pre_nms]]
        merged = views[0].new()
        merged.pred_instances = suppress(found, self.nms)[: self.max_per_img]
        return merged

    @staticmethod
    def _upright(view: DetDataSample, min_side: float) -> InstanceData:
        """A view's detections that are large enough, unmirrored."""
        found = view.pred_instances
        boxes = found.bboxes
        if view.flip:
            boxes = bbox_flip(boxes, view.ori_shape, view.flip_direction)
        found = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
        return found[(boxes[:, 2:] - boxes[:, :2]).amin(1) >= min_side]
