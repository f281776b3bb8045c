"""RoIPool: the largest feature of each bin of a region (Girshick, Fast R-CNN, ICCV 2015, section 2.1)."""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from pe_dense.utils.dtype import widened


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fills ``output`` with the largest features in the bins of regions (``mmcv.ops.roi_pool``).

    The ends of a region are inclusive, and its bins reach to whole px of the map. torchvision's operator rounds the
    region to whole px first, so its bins differ from mmcv's.

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
        output: (K, C, pooled_height, pooled_width), filled in place; 0 where a bin has no px.
        argmax: like ``output``, int32, filled in place with the index into the flattened map; -1 without px.
        pooled_height, pooled_width: bins of a region.
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
    """Fills ``grad_input``, (B, C, H, W), with the gradient of :func:`roi_pool_forward`.

    Args:
        grad_output: (K, C, pooled_height, pooled_width), gradient of the output.
        rois, argmax: as the forward pass had and left them.
        grad_input: (B, C, H, W), filled in place.
        pooled_height, pooled_width, spatial_scale: as in the forward pass.
    """
    grad, rois = widened(grad_output, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_pool_backward(
            grad.contiguous(), rois, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
        )
    )


def _bin_edges(start: Tensor, end: Tensor, scale: float, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """First and past-the-end px (K, bins) of the bins of regions with inclusive ends (K,), cut to the map.

    They are equal, so the bins are empty, where a region ends before it starts.
    """
    start, end = (start * scale)[:, None], ((end + 1) * scale)[:, None]
    step = (end - start) / bins
    number = torch.arange(bins, dtype=start.dtype, device=start.device)
    first = (number * step + start).floor()
    last = ((number + 1) * step + start).ceil().where(step > 0, first)
    return first.long().clamp(0, limit), last.long().clamp(0, limit)
