"""Video object tracking by label propagation, and its evaluation on DAVIS 2017."""

from pe_dense.tracking.davis_eval import DavisMetric, contour_accuracy, region_similarity
from pe_dense.tracking.label_propagation import PropagationContext
from pe_dense.tracking.results_hook import VideoResultsHook
from pe_dense.tracking.tracker import LabelPropagator, LoadVideo

__all__ = [
    "DavisMetric",
    "PropagationContext",
    "LabelPropagator",
    "LoadVideo",
    "VideoResultsHook",
    "contour_accuracy",
    "region_similarity",
]
