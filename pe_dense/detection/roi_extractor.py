"""Pooling of regions from the levels of a pyramid, with exact boxes in mixed precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor as _SingleRoIExtractor
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pe_dense.ops.roi_align import roi_align
from pe_dense.registry import MODELS


@MODELS.register_module()
class SingleRoIExtractor(_SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor``, with boxes and pooling in float32.

    mmdet rounds boxes to the dtype of the features. In bfloat16, as under autocast, coordinates between 512 and 1024 px
    are then multiples of 4 px, and heads are trained on other regions than their targets are of. It takes the arguments
    of mmdet's class.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Pool each region from the level that is chosen by its size.

        Args:
            feats: levels of the pyramid, each (B, C, h, w).
            rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
            roi_scale_factor: factor for the sides of the regions, applied after the choice of the level.

        Returns:
            (K, C, *output_size) in the dtype and memory format of the features.
        """
        rois = rois.float()
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        order = levels.argsort(stable=True)
        by_level = rois[order].split(levels.bincount(minlength=len(feats)).tolist())
        pooled = [_pool(*part) for part in zip(feats, self.roi_layers, by_level, strict=True)]
        channels_last = feats[0].is_contiguous(memory_format=torch.channels_last)
        return _InOrder.apply(order, torch.channels_last if channels_last else torch.contiguous_format, *pooled)


def _pool(level: Tensor, layer: nn.Module, rois: Tensor) -> Tensor:
    """Pool regions (K, 5) of a level; also without regions, so that distributed training finds a gradient."""
    if isinstance(layer, RoIAlign) and layer.pool_mode == "avg":
        return roi_align(level, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
    return layer(level.float(), rois).to(level.dtype)


class _InOrder(torch.autograd.Function):
    """Join parts (K_i, C, h, w) of a permutation (K,): entry ``order[i]`` of the result is entry i of the joined parts.

    Gradients are selected, too, instead of added up as those of any indices.
    """

    @staticmethod
    def forward(ctx, order: Tensor, memory_format: torch.memory_format, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.sizes, ctx.memory_format = [len(part) for part in parts], memory_format
        return _select(parts, order.argsort(), memory_format)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (order,) = ctx.saved_tensors
        return None, None, *_select([grad], order, ctx.memory_format).split(ctx.sizes)


def _select(parts: Sequence[Tensor], indices: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Select entries of the joined parts (K_i, C, h, w) in a memory format."""
    shape = (len(indices), *parts[0].shape[1:])
    selected = torch.empty(shape, dtype=parts[0].dtype, device=parts[0].device, memory_format=memory_format)
    out = selected
    if memory_format == torch.channels_last:  # entries of contiguous memory are copied six times as fast
        *parts, out = (x.permute(0, 2, 3, 1) for x in (*parts, selected))
    torch.index_select(torch.cat(parts) if len(parts) > 1 else parts[0], 0, indices, out=out)
    return selected
