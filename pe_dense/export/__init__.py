"""Export of models to ONNX and ``torch.export`` files."""

from pe_dense.export.detection import DETAGraph, MaskRCNNGraph
from pe_dense.export.graphs import (
    DepthGraph,
    Graph,
    ImageEmbeddingGraph,
    SegmentationGraph,
    TextEmbeddingGraph,
    TowerGraph,
)
from pe_dense.export.masks import InstanceMaskGraph, SemanticMaskGraph
from pe_dense.export.preprocess import Preprocessing
from pe_dense.export.select import graph_of
from pe_dense.export.writer import export_graph

__all__ = [
    "DETAGraph",
    "DepthGraph",
    "Graph",
    "ImageEmbeddingGraph",
    "InstanceMaskGraph",
    "MaskRCNNGraph",
    "Preprocessing",
    "SegmentationGraph",
    "SemanticMaskGraph",
    "TextEmbeddingGraph",
    "TowerGraph",
    "export_graph",
    "graph_of",
]
