"""Simple feature pyramid; its values are compared with recordings in tests/backbones/test_golden.py."""

import pytest
import torch

from pe_dense.necks import LayerNorm2d, SimpleFeaturePyramid


def test_levels_and_their_sizes():
    pyramid = SimpleFeaturePyramid(16, out_channels=8)
    levels = pyramid([torch.randn(2, 4, 1, 1), torch.randn(2, 16, 8, 6)])
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, 32, 24),
        (2, 8, 16, 12),
        (2, 8, 8, 6),
        (2, 8, 4, 3),
        (2, 8, 2, 2),
    ]
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])
    assert pyramid.names == ["simfp_2", "simfp_3", "simfp_4", "simfp_5"]


def test_arguments():
    x = [torch.randn(1, 16, 8, 8), torch.randn(1, 16, 4, 4)]
    assert len(SimpleFeaturePyramid(16, 8, top_level=False)(x)) == 4
    assert SimpleFeaturePyramid(16, 8, scales=(2.0,), stride=8).names == ["simfp_2"]
    assert SimpleFeaturePyramid(16, 8, scales=(1.0,), in_index=0)(x)[0].shape[-1] == 8
    with pytest.raises(ValueError, match="scale 8.0 is not one of 4, 2, 1, 1/2, 1/4"):
        SimpleFeaturePyramid(16, 8, scales=(8.0,))
    with pytest.raises(ValueError, match="stride must be a power of 2 of at least 4, got 14"):
        SimpleFeaturePyramid(16, 8, stride=14)


def test_levels_of_different_channels_and_maps():
    """Levels as those of a dilated ResNet, of which some have the same scale, without 3x3 convolutions."""
    pyramid = SimpleFeaturePyramid(
        16, out_channels=(8, 24, 40), scales=(2.0, 2.0, 0.25), in_index=(0, 1, 1), top_level=False, smooth=False
    )
    maps = [torch.randn(2, 16, 6, 5), torch.randn(2, 16, 6, 5)]
    levels = pyramid(maps)
    # The last one is rounded up, so that even a map of one row has a level.
    assert [tuple(level.shape) for level in levels] == [(2, 8, 12, 10), (2, 24, 12, 10), (2, 40, 2, 2)]
    assert all(level.is_contiguous() for level in levels)
    assert pyramid.names == ["simfp_3", "simfp_3_level1", "simfp_6"]
    assert not any(module.kernel_size == (3, 3) for module in pyramid.modules() if isinstance(module, torch.nn.Conv2d))
    changed = pyramid([maps[0] + 1, maps[1]])
    assert [torch.equal(one, other) for one, other in zip(levels, changed, strict=True)] == [False, True, True]
    assert pyramid([x[:, :, :1, :1] for x in maps])[2].shape == (2, 40, 1, 1)


@pytest.mark.parametrize(("name", "value"), [("out_channels", (8, 8)), ("in_index", (0,))])
def test_one_number_per_scale(name, value):
    with pytest.raises(ValueError, match=f"{name} has {len(value)} entries for 4 scales"):
        SimpleFeaturePyramid(16, **{name: value})


def test_layer_norm_over_channels():
    norm = LayerNorm2d(5, eps=1e-3)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-3).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_layer_norm_is_not_a_view():
    """Autograd copies a view several times for an activation in place, as mmcv's convolutions have; gradients agree."""
    norm, gradients = LayerNorm2d(5), []
    for activation in (torch.relu, torch.relu_):
        x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y = norm(x)
        assert not y._is_view()
        activation(y)[:, :, 1].square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
