"""Probes on frozen towers: what segmentation and depth share."""

from pe_dense.probing.frozen import FrozenTower
from pe_dense.probing.preprocessor import ProbePreprocessor
from pe_dense.probing.probe import LayerProbe, save_probe
from pe_dense.probing.sweep import LayerSweep

__all__ = ["FrozenTower", "LayerProbe", "LayerSweep", "ProbePreprocessor", "save_probe"]
