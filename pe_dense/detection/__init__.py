"""Object detection and instance segmentation."""

from pe_dense.detection.detector import Detector, load_detector

__all__ = ["Detector", "load_detector"]
