"""Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, equation 3).

In shapes B is the number of images, S the number of tokens of all levels together, M the number of heads, D the number
of channels of a head, Q the number of queries, L the number of levels and P the number of sampling points per level.
"""

import logging
import os
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pe_dense.ops import deform_attn_torch

SWITCH = "PE_DENSE_TRITON"


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    """Compute the weighted sum of values at the sampling points of all levels.

    On a GPU this uses Triton kernels, unless the environment variable PE_DENSE_TRITON is 0 or Triton cannot compile
    them; otherwise, and in float64, PyTorch operators are used.

    Args:
        value: (B, S, M, D).
        spatial_shapes: (L, 2) int64, height and width of each level in tokens.
        level_start_index: (L,) int64, index of the first token of each level.
        sampling_loc: (B, Q, M, L, P, 2), normalized x, y coordinates: 0 and 1 are the outer borders of the level.
            Values outside are 0.
        attn_weight: (B, Q, M, L, P).
        im2col_step: images per launch of mmcv's kernel; not used here, because memory is limited in another way.

    Returns:
        (B, Q, M * D), with the dtype of ``value``.
    """
    return _implementation(value).forward(value, spatial_shapes, level_start_index, sampling_loc, attn_weight)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Compute the gradients of :func:`ms_deform_attn_forward`.

    Args:
        value, spatial_shapes, level_start_index, sampling_loc, attn_weight, im2col_step: same as in the forward pass.
        grad_output: (B, Q, M * D), gradient of the output.
        grad_value: (B, S, M, D), filled in place.
        grad_sampling_loc: (B, Q, M, L, P, 2), filled in place.
        grad_attn_weight: (B, Q, M, L, P), filled in place.
    """
    gradients = _implementation(value).backward(
        value, spatial_shapes, level_start_index, sampling_loc, attn_weight, grad_output
    )
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        buffer.copy_(gradient)


class DeformAttnFunction(torch.autograd.Function):
    """Differentiable :func:`ms_deform_attn_forward` on any device; only the inputs are saved for the backward pass.

    Unlike mmcv's function, it does not cast sampling locations: in bfloat16 the error would be half a token on a map of
    256 tokens.
    """

    @staticmethod
    def forward(
        ctx, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """See :func:`ms_deform_attn_forward` for shapes; floating-point dtypes of the inputs may differ."""
        inputs = (value, spatial_shapes, level_start_index, locations, weights)
        ctx.save_for_backward(*inputs)
        return _implementation(value).forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of value, locations and weights, with their dtypes."""
        value, *_ = ctx.saved_tensors
        of_value, of_locations, of_weights = _implementation(value).backward(*ctx.saved_tensors, grad)
        return of_value, None, None, of_locations, of_weights


def _implementation(value: Tensor) -> ModuleType:
    """Select the implementation for the device and dtype of the values."""
    if value.is_cuda and value.dtype != torch.float64 and os.environ.get(SWITCH) != "0":
        return _kernels(value.device) or deform_attn_torch
    return deform_attn_torch


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels if they compile for the device and match the PyTorch implementation, else None."""
    try:
        from pe_dense.ops import deform_attn_triton

        deform_attn_triton.check(device)
    except Exception as error:  # Triton needs a C compiler, Python headers and a supported GPU; errors differ
        logging.getLogger(__name__).warning(
            "Deformable attention falls back from Triton kernels to PyTorch operators: %s: %s (set %s=0 to select "
            "PyTorch operators without this check)",
            *(type(error).__name__, error, SWITCH),
        )
        return None
    return deform_attn_triton
