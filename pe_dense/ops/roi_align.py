"""RoIAlign: features of regions, sampled bilinearly (He et al., Mask R-CNN, ICCV 2017, section 3)."""

import torch
from torch import Tensor
from torchvision import ops

from pe_dense.ops.bilinear import corners, gather, scatter
from pe_dense.utils.dtype import widened

_MAX, _AVG = 0, 1


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills ``output`` with the features of regions (``mmcv.ops.roi_align``).

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
        output: (K, C, aligned_height, aligned_width), filled in place; 0 where a region has no samples.
        argmax_y, argmax_x: like ``output`` for the max mode, filled in place with the points, in px of the map,
            that gave the maxima; (0,) and left alone for the average mode.
        aligned_height, aligned_width: bins of a region.
        spatial_scale: size of the map relative to the image.
        sampling_ratio: samples per bin and direction; 0 for one per px of the map, at least.
        pool_mode: 0 keeps the maximum of a bin's samples, 1 their average.
        aligned: takes pixel centers at half px (Detectron2's correction); else a region is 1 px wide, at least.

    Raises:
        ValueError: for another mode.
    """
    wide, wide_rois = widened(input, rois)
    if _is_average(pool_mode):
        pooled = ops.roi_align(wide, wide_rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
        output.copy_(pooled)
        return
    pooled, y, x = _max_align(wide, wide_rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    output.copy_(pooled)
    argmax_y.copy_(y)
    argmax_x.copy_(x)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills ``grad_input``, (B, C, H, W), with the gradient of :func:`roi_align_forward`.

    Args:
        grad_output: (K, C, aligned_height, aligned_width), gradient of the output.
        rois, argmax_y, argmax_x: as the forward pass had and left them.
        grad_input: (B, C, H, W), filled in place.
        aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned: as in the forward pass.

    Raises:
        ValueError: for another mode.
    """
    grad, wide_rois = widened(grad_output, rois)
    if _is_average(pool_mode):
        grad_maps = torch.ops.torchvision._roi_align_backward(
            grad,
            wide_rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    else:
        points = corners(*widened(argmax_y, argmax_x), *grad_input.shape[2:])
        grad_maps = scatter(grad, rois[:, 0].long(), *points, grad_input.shape)
    grad_input.copy_(grad_maps)


def _is_average(pool_mode: int) -> bool:
    if pool_mode not in (_MAX, _AVG):
        raise ValueError(f"pool_mode must be {_MAX} (max) or {_AVG} (avg), got {pool_mode}")
    return pool_mode == _AVG


def _max_align(
    maps: Tensor, rois: Tensor, bins: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest samples of maps (B, C, H, W) in the bins of regions (K, 5), and their points: (K, C, *bins) each.

    Takes one sample of every bin at a time, so memory stays at a few times the output.
    """
    start, end = (rois[:, sides] * scale - 0.5 * aligned for sides in ([2, 1], [4, 3]))  # (K, 2) as y, x
    extent = end - start if aligned else (end - start).clamp(min=1)
    step = extent / extent.new_tensor(bins)  # px per bin
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(min=0)

    batch = rois[:, 0].long()
    shape = (len(rois), maps.shape[1], *bins)
    best = maps.new_full(shape, -torch.inf)
    # A bin without samples points out of the map, where nothing has weight.
    best_y, best_x = maps.new_full(shape, -2), maps.new_full(shape, -2)
    rows, columns = samples.amax(0).long().tolist() if len(rois) else (0, 0)
    for row in range(rows):
        y = _positions(start[:, 0], step[:, 0], samples[:, 0], row, bins[0])[:, :, None]
        for column in range(columns):
            x = _positions(start[:, 1], step[:, 1], samples[:, 1], column, bins[1])[:, None, :]
            y_here, x_here = torch.broadcast_tensors(y, x)  # (K, *bins)
            values = gather(maps, batch, *corners(y_here, x_here, *maps.shape[2:]))
            exists = (samples[:, 0] > row) & (samples[:, 1] > column)
            better = (values > best) & exists[:, None, None, None]
            best = values.where(better, best)
            best_y = y_here[:, None].where(better, best_y)
            best_x = x_here[:, None].where(better, best_x)
    return best.where(best > -torch.inf, torch.zeros_like(best)), best_y, best_x


def _positions(start: Tensor, step: Tensor, samples: Tensor, index: int, bins: int) -> Tensor:
    """Where sample number ``index`` of each bin lies, (K, bins) in px, for regions with starts and steps (K,)."""
    bin_starts = torch.arange(bins, dtype=start.dtype, device=start.device) * step[:, None]
    return start[:, None] + bin_starts + ((index + 0.5) * step / samples.clamp(min=1))[:, None]
