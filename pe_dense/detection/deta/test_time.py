"""Test-time augmentation of DETA: several sizes and mirrored images, merged by NMS."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from pe_dense.detection.deta.head import suppress
from pe_dense.registry import MODELS


@MODELS.register_module()
class TestTimeDETA(BaseTTAModel):
    """Detects in several views of an image and merges what it finds.

    Each view gives its detections before NMS, so the model's own ``test_cfg`` should have ``nms=None`` and a large
    ``max_per_img``. Small boxes of views that show the image small may be left out.

    Source: the Perception Encoder's detector (arXiv 2504.13181, section 5.3).

    Args:
        module: the detector.
        min_sides: pairs of a view's longer side in px, as its resizing is set, and the shortest side in px of the
            original image that a box of such views must have.
        pre_nms: boxes of all views together that NMS sees, the best ones.
        nms: ``type`` 'nms' or 'soft_nms' and its arguments.
        max_per_img: detections that are kept.
    """

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(
        self,
        module: dict,
        min_sides: Sequence[tuple[int, float]],
        pre_nms: int = 10_000,
        nms: dict | None = None,
        max_per_img: int = 100,
    ):
        super().__init__(module)
        self.min_sides = {int(scale): float(side) for scale, side in min_sides}
        self.pre_nms = pre_nms
        self.nms = nms
        self.max_per_img = max_per_img

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Bring a detector's state dict, released or its own, to the names here."""
        if hasattr(self.module, "from_published"):
            state = self.module.from_published(state, source)
        return {f"module.{key}": value for key, value in state.items()}

    def merge_preds(self, data_samples_list: Sequence[Sequence[DetDataSample]]) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list: per image its views, with ``pred_instances`` in px of the original image and, among
                their meta information, ``scale``, ``ori_shape``, ``flip`` and ``flip_direction``.

        Returns:
            one per image.

        Raises:
            ValueError: for a view of a size that ``min_sides`` does not tell.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[DetDataSample]) -> DetDataSample:
        found = InstanceData.cat([self._upright(view) for view in views])
        found = found[found.scores.argsort(descending=True)[: self.pre_nms]]
        merged = views[0].new()
        merged.pred_instances = suppress(found, self.nms)[: self.max_per_img]
        return merged

    def _upright(self, view: DetDataSample) -> InstanceData:
        """A view's detections that are large enough, unmirrored."""
        scale = max(view.scale)
        if scale not in self.min_sides:
            raise ValueError(f"min_sides tells nothing of views of {scale} px, only of {list(self.min_sides)}")
        found = view.pred_instances
        boxes = found.bboxes
        if view.flip:
            boxes = bbox_flip(boxes, view.ori_shape, view.flip_direction)
        found = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
        return found[(boxes[:, 2:] - boxes[:, :2]).amin(1) >= self.min_sides[scale]]
