"""Probing of frozen backbones, common to segmentation and depth."""

from pe_dense.probing.probe import LayerProbe, ProbePreprocessor, save_probe
from pe_dense.probing.report_hook import LayerMetric, SweepHook
from pe_dense.probing.schedule import DINOv3DepthLR, DINOv3DepthMomentum, DINOv3ProbeLR
from pe_dense.probing.sweep import LayerSweep, SweepOptimWrapperConstructor

__all__ = [
    "DINOv3DepthLR",
    "DINOv3DepthMomentum",
    "DINOv3ProbeLR",
    "LayerMetric",
    "LayerProbe",
    "LayerSweep",
    "ProbePreprocessor",
    "SweepOptimWrapperConstructor",
    "SweepHook",
    "save_probe",
]
