"""Optimizers and layer-wise learning-rate decay.

``pe_dense.Lamb`` is timm's LAMB, for very large batches (arXiv 1904.00962); ``max_grad_norm`` limits the norm of all
gradients together.
"""

from timm.optim import Lamb

from pe_dense.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from pe_dense.registry import OPTIMIZERS

OPTIMIZERS.register_module(module=Lamb)

__all__ = ["Lamb", "LayerDecayOptimWrapperConstructor"]
