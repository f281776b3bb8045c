"""LAMB, for very large batches (arXiv 1904.00962): timm's, as ``pe_dense.Lamb``.

``max_grad_norm`` limits the norm of all gradients together.
"""

from timm.optim import Lamb

from pe_dense.registry import OPTIMIZERS

OPTIMIZERS.register_module(module=Lamb)
