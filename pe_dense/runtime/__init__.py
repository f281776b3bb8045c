"""Run exported models with onnxruntime, numpy and Pillow only; PyTorch is not imported."""

from pe_dense.runtime.masks import CroppedMasks
from pe_dense.runtime.model import OnnxModel
from pe_dense.runtime.results import (
    DepthMap,
    Detections,
    Embeddings,
    FeatureMaps,
    LabelMap,
    Result,
    Segment,
    Segments,
)
from pe_dense.runtime.source import Source

__all__ = [
    "CroppedMasks",
    "DepthMap",
    "Detections",
    "Embeddings",
    "FeatureMaps",
    "LabelMap",
    "OnnxModel",
    "Result",
    "Segment",
    "Segments",
    "Source",
]
