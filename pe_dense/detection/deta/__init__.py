"""DETA: two-stage deformable DETR with IoU-based assignment and NMS (arXiv:2212.06137)."""

from pe_dense.detection.deta.assigner import DETAAssigner
from pe_dense.detection.deta.convert import COCO_IDS
from pe_dense.detection.deta.deta import DETA, DETAOptimWrapperConstructor
from pe_dense.detection.deta.head import DETAHead, FederatedFocalLoss
from pe_dense.detection.deta.soft_nms import soft_nms
from pe_dense.detection.deta.transforms import DETAJitter, DETAResize, DETAView
from pe_dense.detection.deta.tta import DETATTAModel

__all__ = [
    "COCO_IDS",
    "DETA",
    "DETAHead",
    "DETAJitter",
    "DETAResize",
    "DETAView",
    "DETAOptimWrapperConstructor",
    "FederatedFocalLoss",
    "DETAAssigner",
    "DETATTAModel",
    "soft_nms",
]
