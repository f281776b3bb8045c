"""Operators that combine each pixel with its neighbors by predicted weights or masks: CARAFE, PSAMask, masked conv."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.ops.roi_align import widened

COLLECT, DISTRIBUTE = 0, 1


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsample features by content-aware reassembly into ``output`` (CARAFE, arXiv 1905.02188, section 3.2).

    Each output pixel is the weighted sum of the k x k input pixels around its source, which are 0 outside of the map.

    Args:
        features: (N, C, H, W).
        masks: (N, G * k * k, s * H, s * W), weights for each of the G groups of channels.
        rfeatures: (N, C, H, W), written in place: the features, which mmcv passes to the backward pass.
        routput, rmasks: buffers of mmcv's kernels; not used here.
        output: (N, C, s * H, s * W), written in place.
        kernel_size: k, odd.
        group_size: G.
        scale_factor: s.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Compute the gradients of :func:`carafe_forward`.

    Args:
        grad_output: (N, C, s * H, s * W), gradient of the output.
        rfeatures, masks, kernel_size, group_size, scale_factor: see :func:`carafe_forward`.
        rgrad_output, rgrad_input_hs, rgrad_input, rgrad_masks: buffers of mmcv's kernels; not used here.
        grad_input, grad_masks: shapes of the inputs, written in place.
    """
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Compute :func:`carafe_forward`; the arguments are the same, without mmcv's buffers."""
    wide, weights = widened(features, masks)
    weights = weights.unflatten(1, (group_size, kernel_size**2))  # (N, G, k * k, s * H, s * W)
    total = torch.zeros_like(output, dtype=wide.dtype).unflatten(1, (group_size, -1))  # (N, G, C / G, s * H, s * W)
    for number, window in enumerate(_windows(wide, kernel_size)):
        total += _repeat(window, scale_factor).unflatten(1, (group_size, -1)) * weights[:, :, number, None]
    output.copy_(total.flatten(1, 2))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Compute the gradients of :func:`carafe_naive_forward`; see :func:`carafe_backward` for the arguments."""
    grad, wide, weights = widened(grad_output, features, masks)
    grad = grad.unflatten(1, (group_size, -1))
    weights = weights.unflatten(1, (group_size, kernel_size**2))
    margin, (height, width) = kernel_size // 2, features.shape[2:]
    padded = wide.new_zeros(*features.shape[:2], height + 2 * margin, width + 2 * margin)
    of_masks = torch.empty_like(weights)
    for number, window in enumerate(_windows(wide, kernel_size)):
        row, column = divmod(number, kernel_size)
        source = _repeat(window, scale_factor).unflatten(1, (group_size, -1))
        of_masks[:, :, number] = (grad * source).sum(2)
        upsampled = (grad * weights[:, :, number, None]).flatten(1, 2)
        # The average of the s x s output pixels of each source, times their number, is their sum.
        of_source = F.avg_pool2d(upsampled, scale_factor) * scale_factor**2
        padded[:, :, row : row + height, column : column + width] += of_source
    grad_masks.copy_(of_masks.flatten(1, 2))
    grad_input.copy_(padded[:, :, margin : margin + height, margin : margin + width])


def _windows(features: Tensor, kernel_size: int):
    """Yield the neighbor (N, C, H, W) of every pixel at each place of a k x k window, row by row."""
    margin, (height, width) = kernel_size // 2, features.shape[2:]
    padded = F.pad(features, [margin] * 4)
    for row in range(kernel_size):
        for column in range(kernel_size):
            yield padded[:, :, row : row + height, column : column + width]


def _repeat(features: Tensor, scale: int) -> Tensor:
    return features.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, **sizes: int) -> None:
    """Turn attention relative to each pixel into attention between pixels (PSANet, ECCV 2018, section 3.2).

    Args:
        input: (N, h_mask * w_mask, H, W), for each pixel the weights of a window of displacements around it.
        output: (N, H * W, H, W), zeros, written in place: the weights of the pixels (first dimension) for each pixel
            (last two), or, to distribute, in reverse.
        psa_type: 0 to collect, 1 to distribute.
        num_: N.
        sizes: ``h_feature`` and ``w_feature``, H and W; ``h_mask`` and ``w_mask``, sides of the window in px;
            ``half_h_mask`` and ``half_w_mask``, place of the pixel itself in its window.
    """
    inside, place = _displacements(input.device, **sizes)
    pixels = input.flatten(2).transpose(1, 2)  # (N, HW, window), the weights of each pixel
    between = pixels.gather(2, place.expand(num_, -1, -1)) * inside  # (N, pixel, other pixel)
    between = between if psa_type == DISTRIBUTE else between.transpose(1, 2)
    output.copy_(between.unflatten(2, output.shape[2:]))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, **sizes: int) -> None:
    """Compute the gradient of :func:`psamask_forward`.

    Args:
        grad_output: (N, H * W, H, W), gradient of the output.
        grad_input: (N, h_mask * w_mask, H, W), written in place.
        psa_type, num_, sizes: same as in the forward pass.
    """
    inside, place = _displacements(grad_output.device, **sizes)
    between = grad_output.flatten(2)
    between = (between if psa_type == DISTRIBUTE else between.transpose(1, 2)) * inside
    pixels = between.new_zeros(num_, between.shape[1], grad_input.shape[1])
    pixels.scatter_add_(2, place.expand(num_, -1, -1), between)
    grad_input.copy_(pixels.transpose(1, 2).unflatten(2, grad_input.shape[2:]))


def _displacements(
    device: torch.device,
    *,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> tuple[Tensor, Tensor]:
    """For each pair of pixels (HW, HW), whether the second is in the first one's window, and its place there."""
    pixel = torch.arange(h_feature * w_feature, device=device)
    row = pixel[None] // w_feature - pixel[:, None] // w_feature + half_h_mask
    column = pixel[None] % w_feature - pixel[:, None] % w_feature + half_w_mask
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    return inside, (row * w_mask + column) * inside


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Gather the neighborhoods of some pixels into ``col`` (``mmcv.ops.masked_conv2d``, which has no gradients).

    Args:
        im: (1, C, H, W).
        mask_h_idx, mask_w_idx: (K,) int64, rows and columns of the output's pixels to compute.
        col: (C * kernel_h * kernel_w, K), written in place; 0 outside of the image.
        kernel_h, kernel_w: sides of the kernel.
        pad_h, pad_w: zero padding.
    """
    padded = F.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    row, column = (torch.arange(side, device=im.device) for side in (kernel_h, kernel_w))
    rows = (mask_h_idx[None] + row[:, None])[:, None]  # (kernel_h, 1, K)
    columns = (mask_w_idx[None] + column[:, None])[None]  # (1, kernel_w, K)
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the computed pixels into ``im``; the others are not changed.

    Args:
        col: (C, K).
        mask_h_idx, mask_w_idx: (K,) int64, rows and columns of the pixels.
        im: (1, C, H, W), written in place.
        height, width, channels: H, W and C.
    """
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
