"""LVIS's metric."""

from pe_dense.detection.metrics.detection_metric import DetectionMetric
from pe_dense.detection.metrics.lvis_ground_truth import LVISGroundTruth
from pe_dense.registry import METRICS


@METRICS.register_module()
class LVISMetric(DetectionMetric):
    """Average precision and recall by LVIS's rules: ``lvis/bbox_AP``, ``lvis/segm_APr``, ``lvis/bbox_AR@300`` ...

    An image's best 300 detections are evaluated, without those of zero area (neither are annotations of zero area
    matched, as in ``lvis``). Those of categories that are neither annotated nor verified absent in the
    image do not count, and neither do unmatched ones of categories annotated in part.

    Values equal those of the ``lvis`` package. A mask's size is its own area, as in the official evaluation; mmdet's
    metric of the same name takes its box's, so its ``segm_APs``, ``segm_APm`` and ``segm_APl`` are others. (Where an
    annotation's id is 0, which ``lvis`` mistakes for "no match", the value is the right one.)

    Arguments and errors are those of :class:`pe_dense.detection.metrics.detection_metric.DetectionMetric`; the file
    is in the format of LVIS v0.5 or v1.
    """

    default_prefix = "lvis"
    ground_truth_type = LVISGroundTruth
