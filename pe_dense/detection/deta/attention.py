"""Deformable attention on any device and in any precision."""

from __future__ import annotations

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor

from pe_dense.ops.deform_attn import DeformAttnFunction
from pe_dense.ops.import_hook import stands_in


class DeformableAttention(MultiScaleDeformableAttention):
    """mmcv's layer, images first, whose sampling is pe_dense's wherever mmcv has no kernel of its own.

    mmcv's kernel, if it was compiled, takes float32 and float16 on GPUs. All else mmcv does by a formula that holds
    every sampled value, until the backward pass: at 1824 px 1.4 GB in float32 for each layer of the encoder.
    :mod:`pe_dense.ops.deform_attn` holds none.

    Source: Deformable DETR (arXiv 2010.04159, equation 3).
    """

    def forward(
        self,
        query: Tensor,
        *,
        value: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **unused,
    ) -> Tensor:
        """Add to each query what it finds around its reference point.

        B is the batch, Q the queries, S the tokens of all levels, C ``embed_dims``, L the levels.

        Args:
            query: (B, Q, C).
            value: (B, S, C).
            reference_points: (B, Q, L, 2) points, x and y from 0 to 1, or (B, Q, L, 4) boxes, center and size.
            spatial_shapes: (L, 2), height and width of each level in tokens.
            level_start_index: (L,), its first token.
            query_pos: (B, Q, C), added to the queries where they choose points and weights.
            key_padding_mask: (B, S), true for tokens that count as 0.
            unused: what mmdet's layers give every kind of attention.

        Returns:
            (B, Q, C).
        """
        batch, count, _ = query.shape
        positioned = query if query_pos is None else query + query_pos
        projected = self.value_proj(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        projected = projected.view(batch, value.shape[1], self.num_heads, -1)

        grid = (batch, count, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(positioned).view(*grid, 2)
        weights = self.attention_weights(positioned).view(*grid[:3], -1).softmax(-1).view(grid)
        points = reference_points[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 or 4)
        if points.shape[-1] == 2:
            locations = points + offsets / spatial_shapes.flip(1)[:, None]
        else:
            locations = points[..., :2] + offsets / self.num_points * points[..., 2:] * 0.5

        inputs = (projected, spatial_shapes, level_start_index, locations, weights)
        if projected.is_cuda and projected.dtype != torch.bfloat16 and not stands_in():
            sampled = MultiScaleDeformableAttnFunction.apply(*inputs, self.im2col_step)
        else:
            sampled = DeformAttnFunction.apply(*inputs)
        return self.dropout(self.output_proj(sampled)) + query
