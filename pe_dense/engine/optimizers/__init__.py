"""Optimizers and layer-wise learning-rate decay."""

from pe_dense.engine.optimizers.lamb import Lamb
from pe_dense.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ["Lamb", "LayerDecayOptimWrapperConstructor"]
