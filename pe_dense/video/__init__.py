"""Tracking objects through videos by label propagation, and its evaluation on DAVIS 2017."""

from pe_dense.video.davis_dataset import DavisDataset
from pe_dense.video.davis_metric import DavisMetric
from pe_dense.video.jf import contour_accuracy, region_similarity
from pe_dense.video.load_video import LoadVideo
from pe_dense.video.propagation import LabelPropagation
from pe_dense.video.results_hook import VideoResultsHook
from pe_dense.video.shapes_video_dataset import ShapesVideoDataset, write_shapes_video
from pe_dense.video.tracker import LabelPropagator

__all__ = [
    "DavisDataset",
    "DavisMetric",
    "LabelPropagation",
    "LabelPropagator",
    "LoadVideo",
    "ShapesVideoDataset",
    "VideoResultsHook",
    "contour_accuracy",
    "region_similarity",
    "write_shapes_video",
]
