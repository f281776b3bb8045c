"""The parts that keep less for the backward pass, against plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from pe_dense.backbones import PETower
from pe_dense.backbones.attention import RotaryTable, rotate
from pe_dense.backbones.memory_efficient import gelu_linear, project_and_turn

ARCH = dict(
    patch_size=4, width=32, layers=2, heads=2, mlp_ratio=4.0, image_size=32, use_ln_post=False, pool_type="none"
)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_gelu_linear(frozen):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 8), (5, 8), (5,))]
    for index, tensor in enumerate(inputs):
        tensor.requires_grad_(index != frozen)
    assert torch.equal(gelu_linear(*inputs), F.linear(F.gelu(inputs[0]), *inputs[1:]))
    assert torch.autograd.gradcheck(gelu_linear, inputs)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_project_and_turn(frozen):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, 8), (24, 8), (24,))]
    for index, tensor in enumerate(inputs):
        tensor.requires_grad_(index != frozen)
    angles = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    table = RotaryTable(angles.cos(), angles.sin())

    q, k, v = F.linear(*inputs).view(2, 5, 3, 2, 4).unbind(2)
    expected = [part.transpose(1, 2) for part in (rotate(q, table), rotate(k, table), v)]
    for ours, theirs in zip(project_and_turn(*inputs, 2, table), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(lambda *inputs: project_and_turn(*inputs, 2, table), inputs)


def test_gradients_of_any_layout():
    """A sum's gradient is one number repeated, without a memory of its own."""
    x, weight, bias = torch.randn(1, 5, 8), torch.randn(24, 8, requires_grad=True), torch.randn(24)
    table = RotaryTable(torch.ones(5, 2), torch.zeros(5, 2))
    sum(part.sum() for part in project_and_turn(x, weight, bias, 2, table)).backward()
    torch.testing.assert_close(weight.grad, x.sum((0, 1)).expand(24, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_plain_form(dtype, monkeypatch):
    """Also under autocast, where activations and weights differ in precision."""
    torch.manual_seed(0)
    tower = PETower(ARCH).train()
    images = torch.randn(2, 3, 32, 32)

    def gradients():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = tower.forward_features(images).float().square().mean()
        return torch.autograd.grad(loss, list(tower.parameters()))

    lean = gradients()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # what the plain form is for
    for name, ours, plain in zip(dict(tower.named_parameters()), lean, gradients(), strict=True):
        assert ours.dtype == torch.float32
        error = (ours - plain).norm() / plain.norm().clamp(min=1e-6)
        assert error < (1e-5 if dtype == torch.float32 else 2e-2), name


def test_what_a_block_keeps():
    """Twelve tensors of the tokens' width for each block: PyTorch's own functions would keep 18."""
    tower = PETower(ARCH).train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()}
    kept = {}

    def remember(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        tower.transformer.resblocks[0](torch.randn(2, 1, 64, 32, requires_grad=True), None)
    unit = 2 * 64 * 32 * 4
    large = [size / unit for size, _ in kept.values() if size >= unit]
    assert sum(large) == 12
