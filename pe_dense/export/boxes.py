"""Box operators of exported graphs: decoding, non-maximum suppression with outputs of fixed length, RoIAlign."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from pe_dense.utils.errors import InputError

_MAX_RATIO = abs(math.log(16 / 1000))  # mmdet's limit of a box's change in size


def decode_boxes(boxes: Tensor, deltas: Tensor, coder, limits: Tensor) -> Tensor:
    """Apply predicted deltas to boxes and clip them, as mmdet's ``DeltaXYWHBBoxCoder``.

    Args:
        boxes: (..., 4), x1, y1, x2, y2 in px.
        deltas: (..., 4), shift and logarithmic change of size.
        coder: the coder, for its means and standard deviations.
        limits: (4,), width, height, width, height of the image in px.

    Returns:
        (..., 4).
    """
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    centers, sizes = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
    centers = centers + sizes * deltas[..., :2]
    sizes = sizes * deltas[..., 2:].clamp(-_MAX_RATIO, _MAX_RATIO).exp()
    corners = torch.cat([centers - sizes * 0.5, centers + sizes * 0.5], dim=-1)
    return torch.minimum(corners.clamp(min=0), limits)


def check_coder(coder) -> None:
    """Check that :func:`decode_boxes` computes what a coder does.

    Raises:
        InputError: if it does not.
    """
    if type(coder).__name__ != "DeltaXYWHBBoxCoder" or not coder.clip_border or coder.add_ctr_clamp:
        raise InputError(f"boxes of {type(coder).__name__} with these options cannot be exported: only mmdet's default")


def class_wise_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, iou_threshold: float, length: int
) -> Tensor:
    """Apply non-maximum suppression within groups and return a fixed number of indices.

    ONNX's operator takes float32. Groups are separated by shifting their boxes to the cells of a square grid: with one
    row of cells, coordinates of class 1203 would be rounded to 0.1 px, in a grid to 0.004 px.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,).
        groups: (N,), classes or levels, from 0.
        num_groups: number of groups.
        iou_threshold: IoU above which the box with the lower score is removed.
        length: number of indices to return.

    Returns:
        (length,), int64, by decreasing score; N in the places after the last one.
    """
    side = math.ceil(math.sqrt(num_groups))
    cells = torch.stack([groups % side, groups // side], dim=1).to(boxes.dtype)
    low = boxes.min()
    shifted = boxes - low + (cells * (boxes.max() - low + 1)).repeat(1, 2)
    kept = torch.ops.torchvision.nms(shifted, scores, iou_threshold)
    padding = torch.full((length,), boxes.shape[0], dtype=torch.int64)
    return torch.cat([kept, padding]).narrow(0, 0, length)


def with_empty(values: Tensor) -> Tensor:
    """Append a row of zeros, which the padding indices of :func:`class_wise_nms` select."""
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])])


def check_extractor(extractor: nn.Module) -> None:
    """Check that :func:`pool_regions` computes what an extractor of region features does.

    Raises:
        InputError: if it does not.
    """
    layers = extractor.roi_layers
    if type(extractor).__name__ != "SingleRoIExtractor" or any(layer.pool_mode != "avg" for layer in layers):
        raise InputError(f"{type(extractor).__name__} cannot be exported: only SingleRoIExtractor with average pooling")


def pool_regions(extractor: nn.Module, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
    """Pool the features of regions of one image, each from the level of its size.

    Every level pools all regions, so that shapes are fixed; regions of other levels become small boxes, which cost
    little, and their features are replaced.

    Args:
        extractor: mmdet's ``SingleRoIExtractor``.
        maps: levels (1, C, h, w).
        regions: (R, 4), x1, y1, x2, y2 in px.

    Returns:
        (R, C, s, s).
    """
    rois = torch.cat([regions.new_zeros(regions.shape[0], 1), regions], dim=1)
    layers = extractor.roi_layers
    levels = extractor.map_roi_levels(rois, len(layers))
    small = rois.new_tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    total = None
    for level, (layer, features) in enumerate(zip(layers, maps, strict=False)):
        mine = (levels == level)[:, None]
        pooled = roi_align(
            features,
            torch.where(mine, rois, small),
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
        pooled = torch.where(mine[..., None, None], pooled, 0.0)
        total = pooled if total is None else total + pooled
    return total
