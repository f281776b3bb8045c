"""DETA's attention layer equals mmcv's."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention

from pe_dense.detection.deta import deta
from pe_dense.detection.deta.deta import DeformableAttention

SHAPES = torch.tensor([[6, 9], [3, 5]])
STARTS = torch.tensor([0, 54])
OPTIONS = dict(embed_dims=16, num_heads=2, num_levels=2, num_points=3, dropout=0.0, batch_first=True)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = DeformableAttention(**OPTIONS)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def inputs(coordinates):
    generator = torch.Generator().manual_seed(1)
    return dict(
        query=torch.randn(2, 7, 16, generator=generator),
        value=torch.randn(2, 69, 16, generator=generator),
        query_pos=torch.randn(2, 7, 16, generator=generator),
        reference_points=torch.rand(2, 7, 2, coordinates, generator=generator),
        key_padding_mask=torch.rand(2, 69, generator=generator) > 0.8,
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )


def run(layer, given):
    """Return the output and the gradients of query, value and parameters."""
    leaves = {name: given[name].clone().requires_grad_() for name in ("query", "value")}
    output = layer(**given | leaves)
    layer.zero_grad()
    output.float().square().sum().backward()
    return [output, *(leaf.grad for leaf in leaves.values()), *(p.grad.clone() for p in layer.parameters())]


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("left_out", [(), ("query_pos", "key_padding_mask")])
def test_equals_mmcvs(layer, coordinates, left_out):
    theirs = MultiScaleDeformableAttention(**OPTIONS)
    theirs.load_state_dict(layer.state_dict())
    given = {name: value for name, value in inputs(coordinates).items() if name not in left_out}
    # mmdet's layers give more than is needed
    torch.testing.assert_close(run(layer, given | dict(key_pos=None)), run(theirs, given), rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_the_places():
    """Under autocast, values are rounded but locations are not: in bfloat16 this one would move by half a token."""
    small = DeformableAttention(**OPTIONS | dict(num_levels=1))
    torch.nn.init.eye_(small.value_proj.weight), torch.nn.init.eye_(small.output_proj.weight)
    torch.nn.init.zeros_(small.sampling_offsets.bias)
    value = torch.zeros(1, 300, 16)
    value[:, 150] = 1.0
    query = torch.zeros(1, 1, 16)
    middle_of_150 = torch.tensor([150.5 / 300, 0.5]).expand(1, 1, 1, 2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = small(
            query,
            value=value,
            reference_points=middle_of_150,
            spatial_shapes=torch.tensor([[1, 300]]),
            level_start_index=torch.tensor([0]),
        )
    assert (found - 1).abs().max() < 0.05


def test_bfloat16_trains(layer):
    exact = run(layer, inputs(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run(layer, inputs(4))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


@pytest.mark.parametrize(
    ("dtype", "compiled", "wanted"),
    [(torch.float32, True, "mmcv"), (torch.bfloat16, True, "ours"), (torch.float32, False, "ours")],
)
def test_who_samples(layer, dtype, compiled, wanted, monkeypatch):
    """mmcv's compiled kernel is used for the dtypes that it supports (`is_cuda` is mocked)."""

    def by(name):
        def apply(*arguments):
            called.append(name)
            return arguments[0].new_zeros(2, 7, 16)

        return type("Function", (), dict(apply=staticmethod(apply)))

    called = []
    monkeypatch.setattr(deta, "MultiScaleDeformableAttnFunction", by("mmcv"))
    monkeypatch.setattr(deta, "DeformAttnFunction", by("ours"))
    monkeypatch.setattr(deta, "is_replaced", lambda: not compiled)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs(2).items()}
    layer.to(dtype)(**given)
    assert called == [wanted]
