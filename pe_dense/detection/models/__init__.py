"""Parts of detectors that mmdet lacks."""

from pe_dense.detection.models.assigner import MaxIoUAssigner
from pe_dense.detection.models.federated_loss import FederatedLoss
from pe_dense.detection.models.mask_rcnn import MaskRCNN
from pe_dense.detection.models.test_time import TestTimeMaskRCNN

__all__ = ["FederatedLoss", "MaskRCNN", "MaxIoUAssigner", "TestTimeMaskRCNN"]
