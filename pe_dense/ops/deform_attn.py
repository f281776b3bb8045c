"""Attention over a few sampled points per map (Zhu et al., Deformable DETR, ICLR 2021, equation 3).

Notation of shapes: B images, S tokens of all maps together, M heads, D channels of a head, Q queries, L maps
("levels"), P points per map.
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
    """Sums the values at sampled points, weighted, over the points of all maps.

    On a GPU by Triton kernels, unless the environment variable PE_DENSE_TRITON is 0 or Triton can't build them here;
    else, and in float64, by PyTorch's operators.

    Args:
        value: (B, S, M, D).
        spatial_shapes: (L, 2) int64, height and width of each map in tokens.
        level_start_index: (L,) int64, the first token of each map.
        sampling_loc: (B, Q, M, L, P, 2), points as x, y relative to the map: 0 and 1 are its outer borders.
            Outside the values are 0.
        attn_weight: (B, Q, M, L, P).
        im2col_step: images per launch of mmcv's kernel. Here memory is bounded otherwise, so the result does not
            depend on it.

    Returns:
        (B, Q, M * D), of the type of ``value``.
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
    """Fills the gradients of :func:`ms_deform_attn_forward`.

    Args:
        value, spatial_shapes, level_start_index, sampling_loc, attn_weight, im2col_step: as in the forward pass.
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
    """:func:`ms_deform_attn_forward` on any device, differentiable; nothing but the inputs is kept for that.

    Unlike mmcv's function it leaves locations in their own precision: in bfloat16 they would be off by half a token on
    a map of 256 tokens.
    """

    @staticmethod
    def forward(
        ctx, value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """Shapes are those of :func:`ms_deform_attn_forward`; floating point types may differ."""
        inputs = (value, spatial_shapes, level_start_index, locations, weights)
        ctx.save_for_backward(*inputs)
        return _implementation(value).forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations and weights, of their types."""
        value, *_ = ctx.saved_tensors
        of_value, of_locations, of_weights = _implementation(value).backward(*ctx.saved_tensors, grad)
        return of_value, None, None, of_locations, of_weights


def _implementation(value: Tensor) -> ModuleType:
    """What computes, for values like these."""
    if value.is_cuda and value.dtype != torch.float64 and os.environ.get(SWITCH) != "0":
        return _kernels(value.device) or deform_attn_torch
    return deform_attn_torch


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels, if they can be built for a device and give there what the formula gives."""
    try:
        from pe_dense.ops import deform_attn_triton

        deform_attn_triton.check(device)
    except (
        Exception
    ) as error:  # Triton needs a C compiler, Python's headers and a GPU that it knows; each fails its way
        logging.getLogger(__name__).warning(
            "Deformable attention runs on PyTorch's operators, not on its Triton kernels: %s: %s (%s=0 chooses that "
            "without a trial)",
            *(type(error).__name__, error, SWITCH),
        )
        return None
    return deform_attn_triton
