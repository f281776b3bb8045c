"""The ground truth of a COCO file."""

import numpy as np
from faster_coco_eval import COCO

from pe_dense.detection.metrics.ground_truth import GroundTruth
from pe_dense.detection.metrics.precision import means, precision

MAX_DETECTIONS = 100  # of one category in one image


class CocoGroundTruth(GroundTruth):
    """A data set in whose images every category is annotated, crowds by a region that may be detected at will."""

    advice = "It must be a COCO file with annotated instances"

    def _index(self, content: dict) -> None:
        self._truth = COCO(content)

    def counted(self, image_id: int, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return np.arange(len(scores))

    def average_precision(self, detections: list[dict], categories: np.ndarray, iou_type: str) -> dict[str, float]:
        """COCO's averages.

        Returns:
            ``mAP``; ``mAP_50`` and ``mAP_75`` at one IoU threshold; ``mAP_s``, ``mAP_m`` and ``mAP_l`` of small,
            medium and large instances.
        """
        values = precision(self._truth, detections, categories.tolist(), iou_type, max_detections=MAX_DETECTIONS)
        return {f"mAP_{name}" if name else "mAP": value for name, value in means(values).items()}
