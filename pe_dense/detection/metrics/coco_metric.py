"""COCO's metric."""

from pe_dense.detection.metrics.coco_ground_truth import CocoGroundTruth
from pe_dense.detection.metrics.detection_metric import DetectionMetric
from pe_dense.registry import METRICS


@METRICS.register_module()
class CocoMetric(DetectionMetric):
    """Average precision and recall by COCO's rules: ``coco/bbox_mAP``, ``coco/segm_mAP_50``, ``coco/bbox_AR@100`` ...

    The best 100 detections of each category in an image count. Values equal those of ``pycocotools`` with its own
    settings. mmdet's ``CocoMetric`` and ``FasterCocoMetric`` round to three digits, admit 1000 detections of a
    category to some or all of their values, write and read JSON files, and report nothing where nothing is detected.
    (Where an annotation's id is 0, which ``pycocotools`` mistakes for "no match", the value is the right one.)

    Arguments and errors are those of :class:`pe_dense.detection.metrics.detection_metric.DetectionMetric`; the file
    is in COCO's format.
    """

    default_prefix = "coco"
    ground_truth_type = CocoGroundTruth
