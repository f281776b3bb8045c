"""Optimizers and layer-wise learning-rate decay. LAMB is a module of its own, because timm takes seconds to import."""

from pe_dense.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ["LayerDecayOptimWrapperConstructor"]
