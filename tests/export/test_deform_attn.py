"""Deformable attention of exported graphs against the operator that training uses."""

from types import SimpleNamespace

import torch

from pe_dense.export.deform_attn import sample_levels
from pe_dense.ops.deform_attn import ms_deform_attn_forward


def test_values_are_those_of_the_operator():
    """Also at points outside of the maps."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (3, 2)]
    value = torch.randn(2, 30, 3, 5, generator=generator)
    locations = 3 * torch.rand(2, 7, 3, 2, 4, 2, generator=generator) - 1
    weights = torch.rand(2, 7, 3, 2, 4, generator=generator)
    inputs = (value, torch.tensor(shapes), torch.tensor([0, 24]), locations, weights)
    expected = ms_deform_attn_forward(*inputs, 64)
    found = sample_levels(SimpleNamespace(level_shapes=shapes), *inputs)
    assert (found - expected).abs().max() < 1e-5
    assert expected.abs().max() > 1
