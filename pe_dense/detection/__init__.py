"""Object detection and instance segmentation."""

from pe_dense.detection.federated_loss import FederatedLoss
from pe_dense.detection.inferencer import DetectionPredictor, Detector, load_detector
from pe_dense.detection.mask_rcnn import FixedSizeCrop, MaskRCNN, MaxIoUAssigner, RoIHead, RPNHead
from pe_dense.detection.num_classes_hook import ClassCheckHook
from pe_dense.detection.roi_extractor import SingleRoIExtractor
from pe_dense.detection.tta import MaskRCNNTTAModel

__all__ = [
    "ClassCheckHook",
    "DetectionPredictor",
    "Detector",
    "FederatedLoss",
    "FixedSizeCrop",
    "MaskRCNN",
    "MaxIoUAssigner",
    "RPNHead",
    "RoIHead",
    "MaskRCNNTTAModel",
    "SingleRoIExtractor",
    "load_detector",
]
