"""Depth on frozen towers."""

from pe_dense.depth.dpt_head import DPTDepthHead
from pe_dense.depth.linear_head import LinearDepthHead
from pe_dense.depth.metric import DepthMetric
from pe_dense.depth.probe import DepthProbe, DepthSweep

__all__ = ["DPTDepthHead", "DepthMetric", "DepthProbe", "DepthSweep", "LinearDepthHead"]
