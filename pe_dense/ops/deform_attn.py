"""Attention over a few sampled points per map (Zhu et al., Deformable DETR, ICLR 2021, equation 3).

Notation of shapes: B images, S tokens of all maps together, M heads, D channels of a head, Q queries, L maps
("levels"), P points per map.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.ops.precision import widened


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sums the values at sampled points, weighted, over the points of all maps.

    Args:
        value: (B, S, M, D).
        spatial_shapes: (L, 2) int64, height and width of each map in tokens.
        level_start_index: (L,) int64, the first token of each map.
        sampling_loc: (B, Q, M, L, P, 2), points as x, y relative to the map: 0 and 1 are its outer borders.
            Outside the values are 0.
        attn_weight: (B, Q, M, L, P).
        im2col_step: images per launch of mmcv's kernel. Here memory is bounded by going map by map, so the result
            does not depend on it.

    Returns:
        (B, Q, M * D), of the type of ``value``.
    """
    wide_value, locations, weights = widened(value, sampling_loc, attn_weight)
    batch, queries, heads = locations.shape[:3]
    channels = value.shape[3]
    output = wide_value.new_zeros(batch * heads, channels, queries)
    for level, tokens, size in _levels(spatial_shapes, level_start_index):
        output = output + _attend(wide_value[:, tokens], size, locations[:, :, :, level], weights[:, :, :, level])
    return output.view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype).contiguous()


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
    """Fills the gradients of :func:`ms_deform_attn_forward`, computing each map's part of the sum again.

    Args:
        value, spatial_shapes, level_start_index, sampling_loc, attn_weight, im2col_step: as in the forward pass.
        grad_output: (B, Q, M * D), gradient of the output.
        grad_value: (B, S, M, D), filled in place for the tokens of the maps.
        grad_sampling_loc: (B, Q, M, L, P, 2), filled in place.
        grad_attn_weight: (B, Q, M, L, P), filled in place.
    """
    wide_value, locations, weights, grad = widened(value, sampling_loc, attn_weight, grad_output)
    batch, queries, heads = locations.shape[:3]
    grad = grad.transpose(1, 2).reshape(batch * heads, value.shape[3], queries)
    with torch.enable_grad():
        for level, tokens, size in _levels(spatial_shapes, level_start_index):
            leaves = [
                part.detach().requires_grad_()
                for part in (wide_value[:, tokens], locations[:, :, :, level], weights[:, :, :, level])
            ]
            part = _attend(leaves[0], size, leaves[1], leaves[2])
            of_value, of_locations, of_weights = torch.autograd.grad(part, leaves, grad)
            grad_value[:, tokens] = of_value
            grad_sampling_loc[:, :, :, level] = of_locations
            grad_attn_weight[:, :, :, level] = of_weights


def _levels(spatial_shapes: Tensor, level_start_index: Tensor) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Number, tokens and (height, width) of each map."""
    starts = level_start_index.tolist()
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        yield level, slice(starts[level], starts[level] + height * width), (height, width)


def _attend(value: Tensor, size: tuple[int, int], locations: Tensor, weights: Tensor) -> Tensor:
    """One map's part of the sum: (B * M, D, Q).

    Args:
        value: (B, h * w, M, D).
        size: h, w.
        locations: (B, Q, M, P, 2).
        weights: (B, Q, M, P).
    """
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)  # (B * M, D, h, w)
    grid = 2 * locations.transpose(1, 2).flatten(0, 1) - 1  # (B * M, Q, P, 2)
    sampled = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (sampled * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)  # (B * M, D, Q)
