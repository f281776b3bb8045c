"""COCO metric: average precision and recall."""

from functools import cached_property

import numpy as np
from faster_coco_eval import COCO

from pe_dense.detection.metrics.detection_metric import DetectionMetric, GroundTruth, mean, means, precision_recall
from pe_dense.registry import METRICS

MAX_DETECTIONS = (1, 10, 100)  # detections per category and image; precision uses the last limit


class CocoGroundTruth(GroundTruth):
    """COCO ground truth: all categories are annotated in all images; detections in crowd regions are ignored."""

    advice = "It must be a COCO file with annotated instances"

    @cached_property
    def _truth(self) -> COCO:
        content = dict(images=self._table.images(), categories=self._table.categories)
        return COCO(dict(content, annotations=list(self._annotations())))

    def counted(self, image_id: int, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.arange(len(scores))

    def average_precision(self, detections: list[dict], categories: np.ndarray, iou_type: str) -> dict[str, float]:
        """Compute COCO's twelve summary values.

        Returns:
            ``mAP``; ``mAP_50`` and ``mAP_75`` at one IoU threshold; ``mAP_s``, ``mAP_m`` and ``mAP_l`` of small,
            medium and large instances; average recalls ``AR@1``, ``AR@10`` and ``AR@100`` for up to 1, 10 and 100
            detections per category and image; ``AR_s@100``, ``AR_m@100`` and ``AR_l@100`` by size.
        """
        precision, recall = precision_recall(
            self._truth, detections, categories.tolist(), iou_type, max_detections=MAX_DETECTIONS
        )
        averages = {f"mAP_{name}" if name else "mAP": value for name, value in means(precision).items()}
        averages |= {f"AR@{limit}": mean(recall[:, :, 0, index]) for index, limit in enumerate(MAX_DETECTIONS)}
        for index, size in enumerate("sml", start=1):
            averages[f"AR_{size}@{MAX_DETECTIONS[-1]}"] = mean(recall[:, :, index, -1])
        return averages


@METRICS.register_module()
class CocoMetric(DetectionMetric):
    """COCO's average precision and recall: ``coco/bbox_mAP``, ``coco/segm_mAP_50``, ``coco/bbox_AR@100`` ...

    The best 100 detections per category and image are evaluated. Values equal those of ``pycocotools`` with default
    settings. In contrast, mmdet's ``CocoMetric`` and ``FasterCocoMetric`` round to three digits, use up to 1000
    detections per category for some or all values, write and read JSON files, and report nothing if there are no
    detections. (An annotation with id 0, which ``pycocotools`` treats as "no match", is evaluated correctly.)

    Arguments and errors are those of :class:`pe_dense.detection.metrics.detection_metric.DetectionMetric`; the file
    is in COCO's format.
    """

    default_prefix = "coco"
    ground_truth_type = CocoGroundTruth
