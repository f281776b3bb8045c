"""LAMB, for very large batches (arXiv 1904.00962)."""

from __future__ import annotations

from torch.optim import Optimizer

from pe_dense.registry import OPTIMIZERS
from pe_dense.utils.errors import InputError


@OPTIMIZERS.register_module()
def Lamb(params, **settings) -> Optimizer:
    """timm's LAMB.

    Args:
        params: parameters, or groups of them.
        settings: of ``timm.optim.Lamb``; among them ``max_grad_norm``, which bounds the norm of all gradients together
            (1.0).

    Raises:
        ValueError: if timm is not installed.
    """
    try:
        from timm.optim import Lamb as _Lamb
    except ImportError as error:
        raise InputError("LAMB comes from timm: pip install 'pe_dense[distill]'") from error
    return _Lamb(params, **settings)
