"""Deformable convolution and RoI pooling against loops, ordinary convolution and RoIAlign."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_conv_layer
from mmcv.ops import (
    DeformConv2dPack,
    DeformRoIPoolPack,
    ModulatedDeformConv2d,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    deform_roi_pool,
    modulated_deform_conv2d,
)
from mmcv.ops.roi_align import roi_align

# Stride, padding, dilation, groups, groups of offsets.
GEOMETRIES = [(1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 2, 2, 1, 2)]


def tensors(geometry, dtype=torch.float64, size=(5, 6)):
    """Input (2, 4, H, W), offsets that also leave the map, masks and weights (4, 4 / groups, 3, 3), bias."""
    stride, padding, dilation, groups, offset_groups = geometry
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x, weight, bias = draw(2, 4, *size), draw(4, 4 // groups, 3, 3), draw(4)
    out = [(side + 2 * padding - 2 * dilation - 1) // stride + 1 for side in size]
    offset, mask = 2 * draw(2, offset_groups * 18, *out), draw(2, offset_groups * 9, *out).sigmoid()
    return x, offset, mask, weight, bias


def value_at(plane, y, x):
    """Bilinear interpolation of a map that is 0 outside."""
    total = 0.0
    for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
            total += plane[row][column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def loop(x, offset, mask, weight, bias, geometry):
    """Equation 1 of the paper on version 2, point by point."""
    stride, padding, dilation, groups, offset_groups = geometry
    batch, channels = x.shape[:2]
    out = torch.zeros(batch, len(weight), *offset.shape[2:], dtype=x.dtype)
    per_group, per_offset = channels // groups, channels // offset_groups
    for n, o, p, q in itertools.product(*map(range, out.shape)):
        total = float(bias[o])
        for i, k in itertools.product(range(per_group), range(9)):
            channel = o // (len(weight) // groups) * per_group + i
            place = channel // per_offset * 9 + k
            y = p * stride - padding + k // 3 * dilation + float(offset[n, 2 * place, p, q])
            z = q * stride - padding + k % 3 * dilation + float(offset[n, 2 * place + 1, p, q])
            value = value_at(x[n, channel].tolist(), y, z)
            total += float(weight[o, i, k // 3, k % 3] * mask[n, place, p, q]) * value
        out[n, o, p, q] = total
    return out


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_forward_against_loop(geometry):
    x, offset, mask, weight, bias = tensors(geometry, size=(4, 5))
    output = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)
    torch.testing.assert_close(output, loop(x, offset, mask, weight, bias, geometry))
    output = deform_conv2d(x, offset, weight, *geometry)
    expected = loop(x, offset, torch.ones_like(mask), weight, torch.zeros_like(bias), geometry)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_zero_offsets_are_ordinary_convolution(geometry):
    x, offset, mask, weight, bias = tensors(geometry)
    stride, padding, dilation, groups, _ = geometry
    expected = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    zero, one = torch.zeros_like(offset), torch.ones_like(mask)
    torch.testing.assert_close(modulated_deform_conv2d(x, zero, one, weight, bias, *geometry), expected)
    torch.testing.assert_close(deform_conv2d(x, zero, weight, *geometry), expected - bias[:, None, None])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients(geometry):
    x, offset, mask, weight, bias = (tensor.requires_grad_() for tensor in tensors(geometry, size=(3, 4)))
    for function, arguments in (
        (lambda *inputs: deform_conv2d(*inputs, *geometry), (x, offset, weight)),
        (lambda *inputs: modulated_deform_conv2d(*inputs, *geometry), (x, offset, mask, weight, bias)),
        (lambda *inputs: modulated_deform_conv2d(*inputs, None, *geometry), (x, offset, mask, weight)),
    ):
        assert torch.autograd.gradcheck(function, arguments, fast_mode=True)


def test_offsets_of_a_larger_map():
    """mmcv's kernels read the memory of each image's offsets by the output's size, and DyHead's weights expect it."""
    x, offset, mask, weight, bias = tensors(GEOMETRIES[0], size=(2, 3))
    large = [torch.zeros(2, count, 4, 5, dtype=torch.float64) for count in (18, 9)]
    for buffer, values in zip(large, (offset, mask), strict=True):
        buffer.view(2, -1)[:, : values[0].numel()] = values.flatten(1)
    sliced = torch.cat(large, dim=1).split((18, 9), dim=1)  # as DyHead passes them, not contiguous
    output = modulated_deform_conv2d(x, *sliced, weight, bias, 1, 1)
    torch.testing.assert_close(output, modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1))
    assert torch.autograd.gradcheck(
        lambda *inputs: modulated_deform_conv2d(x, *inputs, weight, bias, 1, 1),
        tuple(tensor.requires_grad_() for tensor in large),
        fast_mode=True,
    )
    with pytest.raises(ValueError, match="offsets and masks of 1 x 3 px for an output of 2 x 3 px"):
        modulated_deform_conv2d(x, offset[:, :, :1], mask[:, :, :1], weight, bias, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    geometry = GEOMETRIES[0]
    narrow = [tensor.requires_grad_() for tensor in tensors(geometry, dtype)]
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    outputs = [modulated_deform_conv2d(*inputs, *geometry) for inputs in (narrow, wide)]
    assert outputs[0].dtype == dtype
    torch.testing.assert_close(outputs[0], outputs[1].to(dtype))
    outputs = [deform_conv2d(x, offset, weight, *geometry) for x, offset, _, weight, _ in (narrow, wide)]
    torch.testing.assert_close(outputs[0], outputs[1].to(dtype))
    for output in outputs:
        output.sum().backward()
    for one, other in zip(narrow, wide, strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad.to(dtype))


@pytest.mark.parametrize(("name", "kind"), [("DCN", DeformConv2dPack), ("DCNv2", ModulatedDeformConv2dPack)])
def test_layers_of_configs(name, kind):
    """`conv_cfg=dict(type='DCNv2')` builds a layer that starts as an ordinary convolution, and learns."""
    torch.manual_seed(0)
    layer = build_conv_layer(dict(type=name, deform_groups=1), 4, 6, 3, padding=1)
    assert type(layer) is kind
    x = torch.randn(3, 4, 8, 8)
    expected = F.conv2d(x, layer.weight, padding=1)
    if name == "DCNv2":  # whose weights of the points start at sigmoid(0), and which has a bias
        expected = expected / 2 + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    layer(x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (layer.weight, layer.conv_offset.weight))


def test_autocast():
    layer = ModulatedDeformConv2d(4, 6, 3, padding=1)
    x, offset, mask = torch.randn(1, 4, 6, 6), torch.randn(1, 18, 6, 6), torch.rand(1, 9, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x, offset.bfloat16(), mask.bfloat16())
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and layer.weight.grad.abs().sum() > 0


# Index of the image, x1, y1, x2, y2, in px of an image of twice the map's size.
ROIS = torch.tensor([[0.0, 1, 2, 9, 11], [1, -3, 1, 5, 14], [0, 4, 4, 6, 9]], dtype=torch.float64)


def roi_inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 6, 8, generator=generator, dtype=torch.float64).to(dtype)
    return maps, ROIS.to(dtype), torch.randn(3, 2, 2, 3, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_pooling_without_offsets_is_roi_align(sampling_ratio):
    maps, rois, offset = roi_inputs()
    expected = roi_align(maps, rois, (2, 3), 0.5, sampling_ratio, "avg", True)
    for zero in (None, torch.zeros_like(offset)):
        torch.testing.assert_close(deform_roi_pool(maps, rois, zero, (2, 3), 0.5, sampling_ratio, 0.1), expected)


def test_roi_pooling_moves_each_bin():
    """A bin that is moved by an offset equals the bin of a region that is moved as a whole."""
    maps, rois, offset = roi_inputs()
    output = deform_roi_pool(maps, rois, offset, (2, 3), 0.5, 2, 0.1)
    for k, row, column in itertools.product(range(3), range(2), range(3)):
        _, left, top, right, bottom = rois[k].tolist()
        shift = 0.1 * offset[k, :, row, column] * torch.tensor([right - left, bottom - top], dtype=torch.float64)
        moved = rois[k : k + 1] + torch.cat([torch.zeros(1), shift, shift]).double()
        expected = roi_align(maps, moved, (2, 3), 0.5, 2, "avg", True)[0, :, row, column]
        torch.testing.assert_close(output[k, :, row, column], expected)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_of_roi_pooling(sampling_ratio):
    maps, rois, offset = roi_inputs()
    assert torch.autograd.gradcheck(
        lambda maps, offset: deform_roi_pool(maps, rois, offset, (2, 3), 0.5, sampling_ratio, 0.1),
        (maps.requires_grad_(), offset.requires_grad_()),
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_pooling_in_low_precision(dtype):
    narrow = [tensor.requires_grad_() for tensor in roi_inputs(dtype)]
    wide = [tensor.detach().float().requires_grad_() for tensor in narrow]
    outputs = [deform_roi_pool(*inputs, (2, 3), 0.5, 2, 0.1) for inputs in (narrow, wide)]
    torch.testing.assert_close(outputs[0], outputs[1].to(dtype))
    for output in outputs:
        output.sum().backward()
    for one, other in zip((narrow[0], narrow[2]), (wide[0], wide[2]), strict=True):
        torch.testing.assert_close(one.grad, other.grad.to(dtype))


def test_roi_pooling_layer():
    torch.manual_seed(0)
    layer = DeformRoIPoolPack((2, 2), 4, spatial_scale=0.5)
    output = layer(torch.randn(2, 4, 6, 8), ROIS.float())
    output.square().sum().backward()
    assert output.shape == (3, 4, 2, 2) and layer.offset_fc[-1].bias.grad.abs().sum() > 0
    maps = torch.randn(2, 4, 6, 8, requires_grad=True)
    empty = deform_roi_pool(maps, torch.zeros(0, 5), None, (2, 2), 0.5, 0, 0.1)
    assert empty.shape == (0, 4, 2, 2)
    empty.sum().backward()
    assert (maps.grad == 0).all()
