"""Deformable convolution, versions 1 (arXiv 1703.06211) and 2 (arXiv 1811.11168), and deformable RoI pooling.

The convolutions are torchvision's operator.

In shapes B is the number of images, I and O the numbers of input and output channels, G the number of groups of the
convolution, D the number of groups of channels with offsets of their own, h x w the kernel, P x Q the output's size.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from pe_dense.ops.roi_align import corners, gather, sample_positions, widened


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Compute a deformable convolution without bias into ``output`` (``mmcv.ops.deform_conv2d``).

    Args:
        input: (B, I, H, W).
        weight: (O, I / G, h, w).
        offset: (B, D * h * w * 2, P, Q), y and x of each sampling point relative to the regular grid, in px of the map;
            points outside are 0.
        output: (B, O, P, Q), written in place.
        columns, ones: buffers of mmcv's kernels; not used here.
        geometry: ``kH``, ``kW``, ``dH`` and ``dW`` (stride), ``padH``, ``padW``, ``dilationH``, ``dilationW``,
            ``group``, ``deformable_group`` and ``im2col_step``, which has no effect here.
    """
    inputs = widened(input, weight, offset)
    output.copy_(_convolve(*inputs, None, None, _version_1(geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Compute the gradients of :func:`deform_conv_forward` with respect to input and offsets.

    Args:
        input, offset, weight, columns, geometry: same as in the forward pass.
        grad_output: (B, O, P, Q), gradient of the output.
        grad_input, grad_offset: same shapes as ``input`` and ``offset``, written in place.
    """
    gradients = _gradients(grad_output, input, weight, offset, None, _version_1(geometry))
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1.0,
    **geometry: int,
) -> None:
    """Compute the gradient of :func:`deform_conv_forward` with respect to the weight.

    Args:
        input, offset, columns, ones, geometry: same as in the forward pass.
        grad_output: (B, O, P, Q), gradient of the output.
        grad_weight: (O, I / G, h, w), written in place.
        scale: factor of the gradient.
    """
    # The gradient of a linear function does not depend on the weight, so its buffer stands in for it.
    gradients = _gradients(grad_output, input, grad_weight, offset, None, _version_1(geometry))
    grad_weight.copy_(scale * gradients[1])


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Compute a deformable convolution with a weight for each sampling point (``mmcv.ops.modulated_deform_conv2d``).

    Args:
        input, weight, offset, output: see :func:`deform_conv_forward`.
        bias: (O,), added if ``with_bias`` is set.
        mask: (B, D * h * w, P, Q), weights of the sampling points. Offsets and masks of larger maps are read as mmcv's
            kernels read them, see :func:`_leading_values`; DyHead relies on it.
        ones, columns: buffers of mmcv's kernels; not used here.
        with_bias: whether there is a bias.
        geometry: ``kernel_h``, ``kernel_w``, ``stride_h``, ``stride_w``, ``pad_h``, ``pad_w``, ``dilation_h``,
            ``dilation_w``, ``group`` and ``deformable_group``.
    """
    offset, mask = (_leading_values(tensor, output) for tensor in (offset, mask))
    wide, kernel, offsets, masks, biases = widened(input, weight, offset, mask, bias)
    output.copy_(_convolve(wide, kernel, offsets, masks, biases if with_bias else None, _version_2(geometry)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Compute the gradients of :func:`modulated_deform_conv_forward`.

    Args:
        input, weight, bias, ones, offset, mask, columns, with_bias, geometry: same as in the forward pass.
        grad_input, grad_weight, grad_bias, grad_offset, grad_mask: shapes of the inputs, written in place.
        grad_output: (B, O, P, Q), gradient of the output.
    """
    offset, mask = (_leading_values(tensor, grad_output) for tensor in (offset, mask))
    gradients = _gradients(grad_output, input, weight, offset, mask, _version_2(geometry))
    grad_offset, grad_mask = (_leading_values(tensor, grad_output) for tensor in (grad_offset, grad_mask))
    for buffer, gradient in zip((grad_input, grad_weight, grad_offset, grad_mask), gradients, strict=False):
        buffer.copy_(gradient)
    if with_bias:
        grad_bias.copy_(gradients[4])


def _leading_values(tensor: Tensor, output: Tensor) -> Tensor:
    """Read the first values of every image's offsets or masks as a map of the output's size.

    mmcv's kernels address them by the size of the output, whatever their own size is. DyHead (arXiv 2106.08322) applies
    the offsets of one level to the next smaller one in this way.

    Args:
        tensor: (B, N, H, W), with H * W at least P * Q.
        output: (B, O, P, Q).

    Returns:
        (B, N, P, Q), the tensor itself for equal sizes, else a view of it if it is contiguous.

    Raises:
        ValueError: if the map is smaller than the output.
    """
    (batch, channels, height, width), size = tensor.shape, output.shape[2:]
    if (height, width) == tuple(size):
        return tensor
    if height * width < size.numel():
        raise ValueError(f"offsets and masks of {height} x {width} px for an output of {size[0]} x {size[1]} px")
    return tensor.flatten(1)[:, : channels * size.numel()].view(batch, channels, *size)


def _version_1(geometry: dict) -> tuple[int, ...]:
    """Order stride, padding, dilation and groups as in torchvision's operator."""
    names = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
    return tuple(geometry[name] for name in names)


def _version_2(geometry: dict) -> tuple[int, ...]:
    """Order stride, padding, dilation and groups as in torchvision's operator."""
    names = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", "group", "deformable_group")
    return tuple(geometry[name] for name in names)


def _convolve(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: tuple[int, ...]
) -> Tensor:
    """Call torchvision's operator for tensors of one type; without a mask every point has weight 1."""
    use_mask = mask is not None
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = input.new_zeros(len(weight)) if bias is None else bias
    return torch.ops.torchvision.deform_conv2d(input, weight, offset, mask, bias, *geometry, use_mask)


def _gradients(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight, offset, mask and bias."""
    use_mask = mask is not None
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    grad, input, weight, offset, mask = widened(grad, input, weight, offset, mask)
    bias = input.new_zeros(len(weight))
    return torch.ops.torchvision._deform_conv2d_backward(
        grad.contiguous(), input, weight, offset, mask, bias, *geometry, use_mask
    )


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    **options: float,
) -> None:
    """Average features in the bins of regions, each bin moved by an offset (arXiv 1703.06211, equation 5).

    Args:
        input: (B, C, H, W).
        rois: (K, 5), index of the image, then x1, y1, x2, y2 in px of the image.
        offset: (K, 2, pooled_height, pooled_width), x and y relative to the region's size; (0,) for none.
        output: (K, C, pooled_height, pooled_width), written in place.
        options: ``pooled_height`` and ``pooled_width``, number of bins of a region; ``spatial_scale``, size of the map
            relative to the image; ``sampling_ratio``, samples per bin and direction, 0 for at least one per px of the
            map; ``gamma``, factor of the offsets.
    """
    output.copy_(_pool(*widened(input, rois, offset), **options))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    **options: float,
) -> None:
    """Compute the gradients of :func:`deform_roi_pool_forward`; the forward pass is repeated.

    Args:
        grad_output: (K, C, pooled_height, pooled_width), gradient of the output.
        input, rois, offset, options: same as in the forward pass.
        grad_input, grad_offset: same shapes as ``input`` and ``offset``, written in place.
    """
    grad, maps, wide_rois, offsets = widened(grad_output, input, rois, offset)
    leaves = [tensor.detach().requires_grad_() for tensor in (maps, offsets)]
    with torch.enable_grad():
        pooled = _pool(leaves[0], wide_rois, leaves[1], **options)
        if not pooled.requires_grad:  # no region
            return
        gradients = torch.autograd.grad(pooled, leaves, grad, allow_unused=True)
    for buffer, gradient in zip((grad_input, grad_offset), gradients, strict=True):
        if gradient is not None:
            buffer.copy_(gradient)


def _pool(
    maps: Tensor,
    rois: Tensor,
    offset: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Compute deformable RoI pooling, one sample of every bin at a time: (K, C, *bins)."""
    bins = (pooled_height, pooled_width)
    start, end = (rois[:, sides] * spatial_scale - 0.5 for sides in ([2, 1], [4, 3]))  # (K, 2) as y, x
    extent = end - start
    step = extent / extent.new_tensor(bins)
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil().clamp(min=0)
    moved = [0.0, 0.0]
    if offset.numel():
        moved = [gamma * extent[:, axis, None, None] * offset[:, 1 - axis] for axis in (0, 1)]
    batch = rois[:, 0].long()
    total = maps.new_zeros(len(rois), maps.shape[1], *bins)
    rows, columns = samples.amax(0).long().tolist() if len(rois) else (0, 0)
    for row in range(rows):
        y = sample_positions(start[:, 0], step[:, 0], samples[:, 0], row, bins[0])[:, :, None] + moved[0]
        for column in range(columns):
            x = sample_positions(start[:, 1], step[:, 1], samples[:, 1], column, bins[1])[:, None, :] + moved[1]
            values = gather(maps, batch, *corners(*torch.broadcast_tensors(y, x), *maps.shape[2:]))
            exists = (samples[:, 0] > row) & (samples[:, 1] > column)
            total = total + values * exists[:, None, None, None]
    return total / samples.prod(1).clamp(min=1)[:, None, None, None]
