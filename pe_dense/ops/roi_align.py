"""RoIAlign: pool features of regions with bilinear sampling (He et al., Mask R-CNN, ICCV 2017, section 3)."""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision import ops


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Compute the four neighboring pixels of each point and their bilinear weights.

    Pixel centers are at integer coordinates. Points up to one pixel outside the map take the value at its border;
    points further out have weight 0 (as RoIAlign in Detectron2 and mmcv).

    Args:
        y, x: (...), coordinates of points in pixels.
        height, width: size of the map in pixels.

    Returns:
        indices into the flattened map, (4, ...) int64, and weights, (4, ...).
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    indices = [top * width + left, top * width + right, bottom * width + left, bottom * width + right]
    weights = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
    return torch.stack(indices), torch.stack(weights) * inside


def gather(maps: Tensor, batch: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Interpolate maps at points that are shared by all channels of a region.

    Args:
        maps: (B, C, H, W).
        batch: (K,) int64, index of the map of each region.
        indices, weights: (4, K, h, w), see :func:`corners`.

    Returns:
        (K, C, h, w).
    """
    pixels = maps.flatten(2).transpose(1, 2)  # (B, HW, C)
    values = torch.zeros((), dtype=maps.dtype, device=maps.device)
    for index, weight in zip(indices, weights, strict=True):
        values = values + pixels[batch[:, None, None], index] * weight[..., None]  # (K, h, w, C)
    return values.permute(0, 3, 1, 2)  # (K, C, h, w)


def scatter(values: Tensor, batch: Tensor, indices: Tensor, weights: Tensor, shape: torch.Size) -> Tensor:
    """Compute the gradient of :func:`gather` for points that differ between channels.

    Args:
        values: (K, C, h, w), gradient of the interpolated values.
        batch: (K,) int64, index of the map of each region.
        indices, weights: (4, K, C, h, w), see :func:`corners`.
        shape: (B, C, H, W), shape of the maps.

    Returns:
        (B, C, H, W), gradient of the maps.
    """
    channels, height, width = shape[1:]
    plane = batch[:, None] * channels + torch.arange(channels, device=batch.device)  # (K, C)
    start = (plane * height * width)[..., None, None]
    maps = torch.zeros(shape, dtype=torch.result_type(values, weights), device=values.device)
    for index, weight in zip(indices, weights, strict=True):
        maps.view(-1).index_add_(0, (start + index).flatten(), (values * weight).flatten())
    return maps


_MAX, _AVG = 0, 1
# Number of px of a map up to which the gradient of average pooling is computed by matrix products on a CPU. Their cost
# grows with the map; that of torchvision's loop over the samples of a region does not (benchmarks/roi_align.py).
MAX_PIXELS_OF_PRODUCTS = 128 * 128
# Values that are computed between the two products at once: 16 MB, which a large cache holds.
_VALUES_OF_A_PART = 2**22


def roi_align(
    maps: Tensor, rois: Tensor, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Pool features of regions by the average of their samples, computed in float32 or wider.

    Args:
        maps: (B, C, H, W), in any dtype and memory format.
        rois: (K, 5), see :func:`roi_align_forward`, also for the other arguments.
        bins: number of bins of a region, vertically and horizontally.

    Returns:
        (K, C, *bins) in the dtype and memory format of the maps, with gradients for the maps.
    """
    return _AverageRoIAlign.apply(maps, rois, tuple(bins), spatial_scale, sampling_ratio, aligned)


class _AverageRoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps: Tensor, rois: Tensor, bins: tuple[int, int], *options) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.options, ctx.shape = options, maps.shape
        wide, wide_rois = widened(maps, rois)
        pooled = ops.roi_align(wide, wide_rois, bins, *options)
        channels_last = maps.is_contiguous(memory_format=torch.channels_last)
        return pooled.to(maps.dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (rois,) = ctx.saved_tensors
        gradient = _average_gradient(*widened(grad, rois), ctx.shape, *ctx.options)
        return gradient.to(grad.dtype), *[None] * 5


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
    """Pool features of regions into ``output`` (``mmcv.ops.roi_align``).

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
        output: (K, C, aligned_height, aligned_width), written in place; 0 if a region has no samples.
        argmax_y, argmax_x: same shape as ``output`` for max pooling, written in place with the coordinates of the
            maxima, in px of the map; (0,) and not changed for average pooling.
        aligned_height, aligned_width: number of bins of a region.
        spatial_scale: size of the map relative to the image.
        sampling_ratio: samples per bin and direction; 0 for at least one per px of the map.
        pool_mode: 0 for the maximum of the samples of a bin, 1 for their average.
        aligned: place pixel centers at half px (Detectron2's correction); otherwise regions are at least 1 px wide.

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
    """Compute the gradient of :func:`roi_align_forward`.

    Args:
        grad_output: (K, C, aligned_height, aligned_width), gradient of the output.
        rois, argmax_y, argmax_x: inputs and results of the forward pass.
        grad_input: (B, C, H, W), written in place.
        aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned: same as in the forward pass.

    Raises:
        ValueError: for another mode.
    """
    grad, wide_rois = widened(grad_output, rois)
    if not _is_average(pool_mode):
        points = corners(*widened(argmax_y, argmax_x), *grad_input.shape[2:])
        grad_maps = scatter(grad, rois[:, 0].long(), *points, grad_input.shape)
    else:
        grad_maps = _average_gradient(grad, wide_rois, grad_input.shape, spatial_scale, sampling_ratio, aligned)
    grad_input.copy_(grad_maps)


def _average_gradient(grad: Tensor, rois: Tensor, shape: torch.Size, *options) -> Tensor:
    """Compute :func:`average_backward` by the implementation that is faster for the device and the size of the map."""
    if grad.device.type == "cpu" and shape[2] * shape[3] <= MAX_PIXELS_OF_PRODUCTS:
        return average_backward(grad, rois, shape, *options)
    scale, sampling_ratio, aligned = options
    return torch.ops.torchvision._roi_align_backward(
        grad.contiguous(), rois, scale, *grad.shape[2:], *shape, sampling_ratio, aligned
    )


def average_backward(
    grad: Tensor, rois: Tensor, shape: torch.Size, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Compute the gradient of RoIAlign with average pooling by matrix products.

    The samples of a bin form a grid, so pooling a region is a product with one matrix per axis, ``Y map X^T``, and the
    gradient of the map is the sum of ``Y^T grad X`` over the regions of an image. torchvision's operator for CPUs adds
    up the samples one by one in a single thread; sums are the same up to their order.

    Args:
        grad: (K, C, h, w), gradient of the output, in float32 or float64.
        rois: (K, 5), of the same dtype, see :func:`roi_align_forward`.
        shape: (B, C, H, W), shape of the maps.
        spatial_scale, sampling_ratio, aligned: see :func:`roi_align_forward`.

    Returns:
        (B, C, H, W), gradient of the maps, channels-last.
    """
    _, channels, height, width = shape
    maps = grad.new_zeros(shape[0], height, width * channels)
    images = rois[:, 0].long()
    order = images.argsort(stable=True)
    grad, rois = grad[order], rois[order]
    of_rows = _pooling_matrix(rois[:, [2, 4]], spatial_scale, grad.shape[2], height, sampling_ratio, aligned)
    of_columns = _pooling_matrix(rois[:, [1, 3]], spatial_scale, grad.shape[3], width, sampling_ratio, aligned)
    of_columns = of_columns.transpose(1, 2)[:, None]
    pixels = grad.permute(0, 2, 3, 1)  # (K, h, w, C)
    at_once, start = max(_VALUES_OF_A_PART // (grad.shape[2] * width * channels), 1), 0
    for of_image, count in zip(maps, images.bincount(minlength=shape[0]).tolist(), strict=True):
        for first in range(start, start + count, at_once):
            some = slice(first, min(first + at_once, start + count))
            # (K, 1, W, w) x (K, h, w, C) -> (K, h, W, C), then (H, K * h) x (K * h, W * C) -> (H, W * C)
            by_column = (of_columns[some] @ pixels[some]).view(-1, width * channels)
            torch.addmm(of_image, of_rows[some].flatten(0, 1).t(), by_column, out=of_image)
        start += count
    return maps.unflatten(2, (width, channels)).permute(0, 3, 1, 2)


def _pooling_matrix(sides: Tensor, scale: float, bins: int, length: int, sampling_ratio: int, aligned: bool) -> Tensor:
    """Compute weights (K, bins, length) of the px of an axis in the bins of regions with starts and ends (K, 2)."""
    start, end = (sides * scale - 0.5 * aligned).unbind(1)
    extent = end - start if aligned else (end - start).clamp(min=1)
    step = extent / bins
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(min=0)
    samples = samples.nan_to_num(0, posinf=0)  # boxes of a diverged model, whose losses end the run
    weights = start.new_zeros(len(start), bins, length)
    pixels = torch.arange(length, dtype=start.dtype, device=start.device)
    for index in range(int(samples.max()) if len(samples) else 0):
        position = sample_positions(start, step, samples, index, bins)  # (K, bins)
        counts = (position >= -1) & (position <= length) & (samples > index)[:, None]
        distance = (position.clamp(0, length - 1)[..., None] - pixels).abs()
        weights += (1 - distance).clamp(min=0) * counts[..., None]
    return weights / samples.clamp(min=1)[:, None, None]


def _is_average(pool_mode: int) -> bool:
    if pool_mode not in (_MAX, _AVG):
        raise ValueError(f"pool_mode must be {_MAX} (max) or {_AVG} (avg), got {pool_mode}")
    return pool_mode == _AVG


def _max_align(
    maps: Tensor, rois: Tensor, bins: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Max-pool maps (B, C, H, W) in the bins of regions (K, 5); return maxima and their points, (K, C, *bins) each.

    One sample of every bin is processed at a time, so memory is a few times that of the output.
    """
    start, end = (rois[:, sides] * scale - 0.5 * aligned for sides in ([2, 1], [4, 3]))  # (K, 2) as y, x
    extent = end - start if aligned else (end - start).clamp(min=1)
    step = extent / extent.new_tensor(bins)  # px per bin
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(min=0)

    batch = rois[:, 0].long()
    shape = (len(rois), maps.shape[1], *bins)
    best = maps.new_full(shape, -torch.inf)
    # The point of a bin without samples is outside the map, where weights are 0.
    best_y, best_x = maps.new_full(shape, -2), maps.new_full(shape, -2)
    rows, columns = samples.amax(0).long().tolist() if len(rois) else (0, 0)
    for row in range(rows):
        y = sample_positions(start[:, 0], step[:, 0], samples[:, 0], row, bins[0])[:, :, None]
        for column in range(columns):
            x = sample_positions(start[:, 1], step[:, 1], samples[:, 1], column, bins[1])[:, None, :]
            y_here, x_here = torch.broadcast_tensors(y, x)  # (K, *bins)
            values = gather(maps, batch, *corners(y_here, x_here, *maps.shape[2:]))
            exists = (samples[:, 0] > row) & (samples[:, 1] > column)
            better = (values > best) & exists[:, None, None, None]
            best = values.where(better, best)
            best_y = y_here[:, None].where(better, best_y)
            best_x = x_here[:, None].where(better, best_x)
    return best.where(best > -torch.inf, torch.zeros_like(best)), best_y, best_x


def sample_positions(start: Tensor, step: Tensor, samples: Tensor, index: int, bins: int) -> Tensor:
    """Compute coordinates (K, bins) in px of sample ``index`` of each bin, for regions with starts and steps (K,)."""
    bin_starts = torch.arange(bins, dtype=start.dtype, device=start.device) * step[:, None]
    return start[:, None] + bin_starts + ((index + 0.5) * step / samples.clamp(min=1))[:, None]


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Max-pool features in the bins of regions into ``output`` (``mmcv.ops.roi_pool``).

    The ends of a region are inclusive, and its bins are extended to whole px of the map. torchvision's operator rounds
    the region to whole px first, so its bins differ from mmcv's.

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
        output: (K, C, pooled_height, pooled_width), written in place; 0 for an empty bin.
        argmax: same shape as ``output``, int32, written in place with indices into the flattened map; -1 for an empty
            bin.
        pooled_height, pooled_width: number of bins of a region.
        spatial_scale: size of the map relative to the image.
    """
    maps, wide_rois = widened(input, rois)
    height, width = maps.shape[2:]
    top, bottom = _bin_edges(wide_rois[:, 2], wide_rois[:, 4], spatial_scale, pooled_height, height)
    left, right = _bin_edges(wide_rois[:, 1], wide_rois[:, 3], spatial_scale, pooled_width, width)

    pixels = maps.flatten(2).transpose(1, 2)  # (B, HW, C)
    batch = rois[:, 0].long()[:, None, None]
    shape = (len(rois), pooled_height, pooled_width, maps.shape[1])
    best = maps.new_full(shape, -torch.inf)
    best_index = torch.full(shape, -1, dtype=torch.int64, device=maps.device)
    rows, columns = (int((end - start).max()) if len(rois) else 0 for start, end in ((top, bottom), (left, right)))
    for row in range(rows):
        y = (top + row)[:, :, None]
        for column in range(columns):
            x = (left + column)[:, None, :]
            exists = (y < bottom[:, :, None]) & (x < right[:, None, :])  # (K, h, w)
            index = (y * width + x) * exists
            values = pixels[batch, index]  # (K, h, w, C)
            better = (values > best) & exists[..., None]
            best = values.where(better, best)
            best_index = index[..., None].where(better, best_index)
    output.copy_(best.where(best_index >= 0, torch.zeros_like(best)).permute(0, 3, 1, 2))
    argmax.copy_(best_index.permute(0, 3, 1, 2))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Compute the gradient of :func:`roi_pool_forward`.

    Args:
        grad_output: (K, C, pooled_height, pooled_width), gradient of the output.
        rois, argmax: inputs and results of the forward pass.
        grad_input: (B, C, H, W), written in place.
        pooled_height, pooled_width, spatial_scale: same as in the forward pass.
    """
    grad, rois = widened(grad_output, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_pool_backward(
            grad.contiguous(), rois, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
        )
    )


def _bin_edges(start: Tensor, end: Tensor, scale: float, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """Compute first and past-the-end px (K, bins) of the bins of regions with inclusive ends (K,), clipped to the map.

    If a region ends before it starts, they are equal and the bins are empty.
    """
    start, end = (start * scale)[:, None], ((end + 1) * scale)[:, None]
    step = (end - start) / bins
    number = torch.arange(bins, dtype=start.dtype, device=start.device)
    first = (number * step + start).floor()
    last = ((number + 1) * step + start).ceil().where(step > 0, first)
    return first.long().clamp(0, limit), last.long().clamp(0, limit)


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast tensors to the widest of their dtypes, at least float32.

    Under autocast, features are in half precision or bfloat16 and boxes in float32. torchvision's kernels require one
    dtype and do not support bfloat16, and sums over many samples should be computed in float32.

    Args:
        tensors: floating-point tensors of any shapes.

    Returns:
        the tensors, in order, all of one dtype.
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
