"""The precision in which the operators compute."""

import torch
from torch import Tensor


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts tensors to the widest of their types, and to float32 at least.

    Under autocast an operator gets half or bfloat16 features beside float32 boxes: torchvision's kernels want one
    type and know no bfloat16, and sums over many samples want float32.

    Args:
        tensors: floating point tensors of any shapes.

    Returns:
        The same tensors, in order, all of one type.
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
