"""LVIS's metric."""

from pe_dense.detection.metrics.detection_metric import DetectionMetric
from pe_dense.detection.metrics.lvis_ground_truth import LVISGroundTruth
from pe_dense.registry import METRICS


@METRICS.register_module()
class LVISMetric(DetectionMetric):
    """Average precision by LVIS's rules: ``lvis/bbox_AP``, ``lvis/segm_APr`` and the like.

    An image's best 300 detections enter. Those of categories that are neither annotated nor verified absent in the
    image do not count, and neither do unmatched ones of categories annotated in part.

    Values equal those of the ``lvis`` package. A mask's size is its own area, as in the official evaluation; mmdet's
    metric of the same name takes its box's, so its ``segm_APs``, ``segm_APm`` and ``segm_APl`` are others. (Where an
    annotation's id is 0, which ``lvis`` mistakes for "no match", the value is the right one.)

    Arguments and errors are those of :class:`pe_dense.detection.metrics.detection_metric.DetectionMetric`; the file
    is in the format of LVIS v0.5 or v1.
    """

    default_prefix = "lvis"
    ground_truth_type = LVISGroundTruth
