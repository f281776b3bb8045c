"""The parts that keep less for the backward pass, against plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from pe_dense.tower import PETower
from pe_dense.tower.lean import gelu_linear, turn_queries_and_keys
from pe_dense.tower.rope import RotaryTable, rotate

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


def test_turn():
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 5, 3, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    table = RotaryTable(angles.cos(), angles.sin())
    turned = turn_queries_and_keys(qkv * 1, table)
    torch.testing.assert_close(turned[:, :, :2], rotate(qkv[:, :, :2], table), atol=1e-14, rtol=0)
    assert torch.equal(turned[:, :, 2], qkv[:, :, 2])
    assert torch.autograd.gradcheck(lambda x: turn_queries_and_keys(x * 1, table), qkv)


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
