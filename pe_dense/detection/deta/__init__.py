"""DETA: a two-stage deformable transformer that is trained by overlaps and predicts with NMS (arXiv 2212.06137)."""

from pe_dense.detection.deta.assigner import OverlapAssigner
from pe_dense.detection.deta.detector import DETA
from pe_dense.detection.deta.federated_loss import FederatedFocalLoss
from pe_dense.detection.deta.head import DETAHead
from pe_dense.detection.deta.released import COCO_IDS
from pe_dense.detection.deta.soft_nms import soft_nms
from pe_dense.detection.deta.test_time import TestTimeDETA

__all__ = ["COCO_IDS", "DETA", "DETAHead", "FederatedFocalLoss", "OverlapAssigner", "TestTimeDETA", "soft_nms"]
