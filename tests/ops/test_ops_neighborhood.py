"""CARAFE, PSAMask and masked convolution against loops and ordinary convolution."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import CARAFE, MaskedConv2d, PSAMask, carafe
from mmcv.ops.carafe import CARAFEPack

from pe_dense.ops.neighborhood import carafe_naive_backward, carafe_naive_forward


def inputs(kernel, groups, scale, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64).to(dtype)
    masks = torch.rand(2, groups * kernel**2, 3 * scale, 4 * scale, generator=generator, dtype=torch.float64).to(dtype)
    return features, masks


def carafe_loop(features, masks, kernel, groups, scale):
    (batch, channels, height, width), radius = features.shape, kernel // 2
    out = torch.zeros(batch, channels, height * scale, width * scale, dtype=features.dtype)
    for n, c, y, x, i, j in itertools.product(*map(range, out.shape), range(kernel), range(kernel)):
        row, column = y // scale + i - radius, x // scale + j - radius
        if 0 <= row < height and 0 <= column < width:
            weight = masks[n, c // (channels // groups) * kernel**2 + i * kernel + j, y, x]
            out[n, c, y, x] += weight * features[n, c, row, column]
    return out


@pytest.mark.parametrize(("kernel", "groups", "scale"), [(3, 1, 2), (5, 2, 1), (3, 4, 3)])
def test_carafe(kernel, groups, scale):
    features, masks = inputs(kernel, groups, scale)
    expected = carafe_loop(features, masks, kernel, groups, scale)
    torch.testing.assert_close(CARAFE(kernel, groups, scale)(features, masks), expected)
    naive = torch.zeros_like(expected)
    carafe_naive_forward(features, masks, naive, kernel, groups, scale)
    torch.testing.assert_close(naive, expected)
    assert torch.autograd.gradcheck(
        lambda *tensors: carafe(*tensors, kernel, groups, scale),
        (features.requires_grad_(), masks.requires_grad_()),
        fast_mode=True,
    )


def test_carafe_naive_backward():
    """mmcv's own function refuses gradients outside of a GPU, so the operator is called directly."""
    features, masks = inputs(3, 2, 2)
    features.requires_grad_(), masks.requires_grad_()
    output = carafe(features, masks, 3, 2, 2)
    grad = torch.randn_like(output)
    output.backward(grad)
    buffers = torch.zeros_like(features), torch.zeros_like(masks)
    carafe_naive_backward(grad, features.detach(), masks.detach(), *buffers, 3, 2, 2)
    torch.testing.assert_close(buffers, (features.grad, masks.grad))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_carafe_in_low_precision(dtype):
    features, masks = (tensor.requires_grad_() for tensor in inputs(3, 1, 2, dtype))
    wide = [tensor.detach().float().requires_grad_() for tensor in (features, masks)]
    output, expected = carafe(features, masks, 3, 1, 2), carafe(*wide, 3, 1, 2)
    torch.testing.assert_close(output, expected.to(dtype))
    output.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(features.grad, wide[0].grad.to(dtype))


def test_carafe_layer_of_configs():
    torch.manual_seed(0)
    layer = CARAFEPack(8, 2)
    output = layer(torch.randn(1, 8, 4, 5))
    assert output.shape == (1, 8, 8, 10)
    output.sum().backward()
    assert layer.content_encoder.weight.grad.abs().sum() > 0
    # The weights of a window sum to 1: a constant map stays constant away from the borders.
    torch.testing.assert_close(layer(torch.ones(1, 8, 9, 9))[0, :, 4:-4, 4:-4], torch.ones(8, 10, 10))


@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("size", [(5, 7), (3, 3)])
def test_psa_mask(kind, size):
    height, width = 3, 4
    masks = torch.rand(2, size[0] * size[1], height, width, dtype=torch.float64)
    expected = torch.zeros(2, height * width, height, width, dtype=torch.float64)
    places = itertools.product(range(2), range(height), range(width), range(height), range(width))
    for n, y, x, other_y, other_x in places:
        row, column = other_y - y + (size[0] - 1) // 2, other_x - x + (size[1] - 1) // 2
        if 0 <= row < size[0] and 0 <= column < size[1]:
            weight = masks[n, row * size[1] + column, y, x]
            if kind == "collect":
                expected[n, other_y * width + other_x, y, x] = weight
            else:
                expected[n, y * width + x, other_y, other_x] = weight
    layer = PSAMask(kind, size)
    torch.testing.assert_close(layer(masks), expected)
    assert torch.autograd.gradcheck(layer, masks.requires_grad_(), fast_mode=True)


def test_psa_mask_keeps_the_type():
    masks = torch.rand(1, 9, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    output = PSAMask("collect", (3, 3))(masks)
    output.sum().backward()
    assert output.dtype == masks.grad.dtype == torch.bfloat16
    # A corner sees 4 of the 9 places of its window, the center all.
    assert masks.grad[0, :, 0, 0].sum() == 4 and masks.grad[0, :, 1, 1].sum() == 9


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
def test_masked_convolution(kernel, padding):
    torch.manual_seed(0)
    layer = MaskedConv2d(3, 4, kernel, padding=padding)
    x, mask = torch.randn(1, 3, 5, 6), torch.rand(1, 5, 6) > 0.5
    with torch.no_grad():
        expected = F.conv2d(x, layer.weight, layer.bias, padding=padding) * mask
        torch.testing.assert_close(layer(x, mask.float()), expected)
        assert (layer(x, torch.zeros(1, 5, 6)) == 0).all()
