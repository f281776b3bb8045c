import math

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

from pe_dense.ops.deform_attn import DeformAttnFunction, ms_deform_attn_backward, ms_deform_attn_forward

SIZES = [(3, 5), (2, 2), (1, 4)]
BATCH, QUERIES, HEADS, CHANNELS, POINTS = 2, 3, 2, 4, 2


def make_inputs(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Value, shapes, starts, locations (some outside of the maps) and weights."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in SIZES)
    value = torch.randn(BATCH, tokens, HEADS, CHANNELS, generator=generator)
    locations = torch.rand(BATCH, QUERIES, HEADS, len(SIZES), POINTS, 2, generator=generator) * 1.6 - 0.3
    weights = torch.rand(BATCH, QUERIES, HEADS, len(SIZES), POINTS, generator=generator)
    return [
        value.to(dtype),
        torch.tensor(SIZES),
        torch.tensor([0, 15, 19]),
        locations.to(dtype),
        weights.to(dtype),
    ]


def loop_attention(value, shapes, starts, locations, weights):
    output = torch.zeros(BATCH, QUERIES, HEADS, CHANNELS, dtype=value.dtype)
    for b, q, m, level, p in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        height, width = shapes[level].tolist()
        x, y = (locations[b, q, m, level, p] * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    token = starts[level] + row * width + column
                    output[b, q, m] += weights[b, q, m, level, p] * share * value[b, token, m]
    return output.flatten(2)


def test_forward_against_loop():
    inputs = make_inputs()
    outside = (inputs[3] < 0) | (inputs[3] > 1)
    assert outside.any() and not outside.all()
    torch.testing.assert_close(ms_deform_attn_forward(*inputs, im2col_step=64), loop_attention(*inputs))


def test_forward_against_mmcv():
    value, shapes, starts, locations, weights = make_inputs(torch.float32)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(ms_deform_attn_forward(value, shapes, starts, locations, weights, 1), expected)


def test_forward_by_hand():
    """One query at the center of a pixel, and one midway to the next."""
    value = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    locations = torch.tensor([[0.25, 0.25], [0.5, 0.75]]).view(1, 2, 1, 1, 1, 2)
    weights = torch.tensor([1.0, 0.5]).view(1, 2, 1, 1, 1)
    output = ms_deform_attn_forward(value, torch.tensor([[2, 2]]), torch.tensor([0]), locations, weights, 64)
    assert output.flatten().tolist() == [1, 0.5 * 3.5]


def test_maps_lie_where_their_starts_say():
    value, shapes, starts, locations, weights = make_inputs()
    moved = torch.cat([torch.full_like(value[:, :2], 100), value[:, 15:], value[:, :15]], dim=1)
    output = ms_deform_attn_forward(moved, shapes, torch.tensor([10, 2, 6]), locations, weights, 64)
    torch.testing.assert_close(output, loop_attention(value, shapes, starts, locations, weights))


def test_gradient():
    value, shapes, starts, locations, weights = make_inputs()
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda value, locations, weights: MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        ),
        leaves,
    )


def test_gradient_against_mmcv():
    value, shapes, starts, locations, weights = make_inputs(torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    grad = torch.randn(BATCH, QUERIES, HEADS * CHANNELS, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(multi_scale_deformable_attn_pytorch(value, shapes, locations, weights), leaves, grad)
    buffers = [torch.zeros_like(leaf) for leaf in leaves]
    with torch.no_grad():
        ms_deform_attn_backward(value, shapes, starts, locations, weights, grad, *buffers, im2col_step=64)
    torch.testing.assert_close(buffers, list(expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    """Computes in float32 and rounds once, at the end."""
    value, shapes, starts, locations, weights = make_inputs(dtype)
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    wide = [leaf.detach().float().requires_grad_() for leaf in leaves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(wide[0], shapes, *wide[1:])
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype), rtol=1e-2, atol=1e-3)
    output.float().sum().backward()
    expected.sum().backward()
    for leaf, reference in zip(leaves, wide, strict=True):
        torch.testing.assert_close(leaf.grad, reference.grad.to(dtype), rtol=1e-2, atol=1e-3)


def test_non_finite_locations_only_affect_their_own_query():
    value, shapes, starts, locations, weights = make_inputs(torch.float32)
    expected = ms_deform_attn_forward(value, shapes, starts, locations, weights, 64)
    leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    with torch.no_grad():
        leaves[1][0, 0, 0, 0, 0, 0], leaves[1][1, 2, 1, 1, 0, 1] = math.nan, math.inf
    output = DeformAttnFunction.apply(leaves[0], shapes, starts, *leaves[1:])
    output.nansum().backward()
    spoilt = torch.zeros(BATCH, QUERIES, HEADS, CHANNELS, dtype=torch.bool)
    spoilt[0, 0, 0] = spoilt[1, 2, 1] = True
    assert torch.equal(output.isnan(), spoilt.flatten(2))
    torch.testing.assert_close(output[~spoilt.flatten(2)], expected[~spoilt.flatten(2)])


def test_function_of_its_own_is_mmcvs():
    value, shapes, starts, locations, weights = make_inputs(torch.float32)
    found = []
    for ours in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        given = (leaves[0], shapes, starts, *leaves[1:])
        output = DeformAttnFunction.apply(*given) if ours else MultiScaleDeformableAttnFunction.apply(*given, 64)
        found.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_queries():
    value, shapes, starts, locations, weights = make_inputs()
    value.requires_grad_()
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations[:, :0], weights[:, :0], 64)
    assert output.shape == (BATCH, 0, HEADS * CHANNELS)
    output.sum().backward()
    assert (value.grad == 0).all()


def test_layer_trains():
    layer = MultiScaleDeformableAttention(8, num_heads=2, num_levels=3, num_points=2, batch_first=True)
    query = torch.randn(1, 3, 8, requires_grad=True)
    value = torch.randn(1, 23, 8, requires_grad=True)
    points = torch.full((1, 3, 3, 2), 0.4)
    layer(
        query, value=value, reference_points=points, spatial_shapes=torch.tensor(SIZES),
        level_start_index=torch.tensor([0, 15, 19]),
    ).square().sum().backward()  # fmt: skip
    assert all(tensor.grad.abs().sum() > 0 for tensor in (query, value, layer.sampling_offsets.weight))
