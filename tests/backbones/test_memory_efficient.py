"""Memory-efficient attention and MLP equal plain PyTorch and support hooks, adapters and quantization."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize, prune

from pe_dense.backbones import PETower
from pe_dense.backbones.attention import RotaryTable, apply_rope
from pe_dense.backbones.memory_efficient import gelu_linear, qkv_with_rope

ARCH = dict(
    patch_size=4, width=32, layers=2, heads=2, mlp_ratio=4.0, image_size=32, use_ln_post=False, pool_type="none"
)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_gelu_linear(frozen):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 8), (5, 8), (5,))]
    linear = nn.Linear(8, 5).double()
    linear.weight, linear.bias = nn.Parameter(inputs[1]), nn.Parameter(inputs[2])
    leaves = [inputs[0], linear.weight, linear.bias]
    for index, tensor in enumerate(leaves):
        tensor.requires_grad_(index != frozen)
    output = gelu_linear(leaves[0], linear)
    assert "GELULinear" in type(output.grad_fn).__name__
    expected = F.linear(F.gelu(leaves[0]), *leaves[1:])
    assert torch.equal(output, expected)
    wanted = [tensor for index, tensor in enumerate(leaves) if index != frozen]
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    gradients = (torch.autograd.grad((result * weights).sum(), wanted) for result in (output, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_qkv_with_rope(frozen):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, 8), (24, 8), (24,))]
    for index, tensor in enumerate(inputs):
        tensor.requires_grad_(index != frozen)
    angles = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    table = RotaryTable(angles.cos(), angles.sin())

    q, k, v = F.linear(*inputs).view(2, 5, 3, 2, 4).unbind(2)
    expected = [part.transpose(1, 2) for part in (apply_rope(q, table), apply_rope(k, table), v)]
    for ours, theirs in zip(qkv_with_rope(*inputs, 2, table), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(lambda *inputs: qkv_with_rope(*inputs, 2, table), inputs)


def test_bfloat16_is_rotated_in_float32():
    """Queries and keys are rounded once, after the rotation; also their gradients."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator).bfloat16() for shape in ((2, 5, 8), (24, 8), (24,)))
    angles = torch.randn(5, 2, generator=generator)
    table = RotaryTable(angles.cos(), angles.sin())
    plain = F.linear(x, weight, bias).view(2, 5, 3, 2, 4).unbind(2)
    expected = [apply_rope(plain[0].float(), table), apply_rope(plain[1].float(), table), plain[2].float()]
    for ours, exact in zip(qkv_with_rope(x, weight, bias, 2, table), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), exact.transpose(1, 2), atol=0, rtol=2**-8)


def test_gradients_of_any_layout():
    """The gradient of a sum is an expanded tensor."""
    x, weight, bias = torch.randn(1, 5, 8), torch.randn(24, 8, requires_grad=True), torch.randn(24)
    table = RotaryTable(torch.ones(5, 2), torch.zeros(5, 2))
    sum(part.sum() for part in qkv_with_rope(x, weight, bias, 2, table)).backward()
    torch.testing.assert_close(weight.grad, x.sum((0, 1)).expand(24, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_plain_form(dtype):
    """Also under autocast, where activations and weights differ in dtype."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def gradients(memory_efficient):
        torch.manual_seed(0)
        tower = PETower(ARCH, memory_efficient=memory_efficient).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = tower.forward_features(images).float().square().mean()
        names = [name for name, _ in tower.named_parameters()]
        return zip(names, torch.autograd.grad(loss, list(tower.parameters())), strict=True)

    for (name, ours), (_, plain) in zip(gradients(True), gradients(False), strict=True):
        assert ours.dtype == torch.float32
        error = (ours - plain).norm() / plain.norm().clamp(min=1e-6)
        assert error < (1e-5 if dtype == torch.float32 else 2e-2), name


def tower_and_images():
    torch.manual_seed(0)
    return PETower(ARCH).train(), torch.randn(2, 3, 32, 32)


LINEARS = ("attn.out_proj", "mlp.c_fc", "mlp.c_proj")


@pytest.mark.parametrize("name", LINEARS)
def test_forward_hooks_run(name):
    tower, images = tower_and_images()
    shapes = []
    layer = tower.transformer.resblocks[1].get_submodule(name)
    layer.register_forward_hook(lambda _, inputs, output: shapes.append((inputs[0].shape[-1], output.shape[-1])))
    tower(images)[0].sum().backward()
    with torch.no_grad():
        tower(images)
    assert shapes == [(layer.in_features, layer.out_features)] * 2


class LoRA(nn.Module):
    """Adapter around a layer, as in Hu et al. (arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int = 2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)


@pytest.mark.parametrize("name", LINEARS)
def test_adapters_take_effect_and_learn(name):
    tower, images = tower_and_images()
    before = tower(images)[0].detach()
    block = tower.transformer.resblocks[0]
    adapter = LoRA(block.get_submodule(name))
    block.set_submodule(name, adapter)
    after = tower(images)[0]
    assert not torch.allclose(before, after, atol=1e-3)
    after.square().sum().backward()
    assert adapter.down.grad.abs().max() > 0 and adapter.up.grad.abs().max() > 0
    assert adapter.base.weight.grad is None


def test_adapters_of_the_qkv_projection():
    """The projection has two parameters, as in nn.MultiheadAttention, so adapters are parametrizations."""

    class LowRank(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.down = nn.Parameter(torch.randn(2, weight.shape[1]))
            self.up = nn.Parameter(torch.randn(weight.shape[0], 2))

        def forward(self, weight):
            return weight + self.up @ self.down

    tower, images = tower_and_images()
    before = tower(images)[0].detach()
    attention = tower.transformer.resblocks[0].attn
    attention.in_proj_weight.requires_grad_(False)
    adapter = LowRank(attention.in_proj_weight)
    parametrize.register_parametrization(attention, "in_proj_weight", adapter)
    after = tower(images)[0]
    assert not torch.allclose(before, after, atol=1e-3)
    after.square().sum().backward()
    assert adapter.down.grad.abs().max() > 0 and adapter.up.grad.abs().max() > 0


def test_parametrized_and_patched_layers_take_effect():
    tower, images = tower_and_images()
    before = tower(images)[0].detach()
    first, second = (block.mlp.c_proj for block in tower.transformer.resblocks)
    prune.random_unstructured(first, "weight", amount=0.9)
    pruned = tower(images)[0].detach()
    assert not torch.allclose(before, pruned, atol=1e-3)
    second.forward = lambda x: torch.zeros(*x.shape[:-1], 32)
    assert not torch.allclose(tower(images)[0], pruned, atol=1e-3)


class Int8Linear(nn.Linear):
    """Weight-only quantization without a floating-point weight."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features)
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.weight = nn.Parameter((linear.weight / scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x):
        return F.linear(x, self.weight * self.scale, self.bias)


def test_quantized_layers_run():
    tower, images = tower_and_images()
    before = tower(images)[0]
    for block in tower.transformer.resblocks:
        for name in LINEARS:
            block.set_submodule(name, Int8Linear(block.get_submodule(name)))
    for after in (tower(images)[0], tower.eval()(images)[0]):
        assert 1e-5 < (after - before).norm() / before.norm() < 0.02


def test_weights_of_a_tensor_subclass_reach_the_operators():
    """Quantized weights are tensor subclasses that override linear layers."""
    called = []

    class Quantized(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is F.linear:
                called.append(args[1].shape[0])
                return F.linear(args[0], args[1].as_subclass(torch.Tensor), *args[2:])
            return super().__torch_function__(function, types, args, kwargs or {})

    tower, images = tower_and_images()
    block = tower.transformer.resblocks[0]
    for module, name in ((block.attn, "in_proj_weight"), (block.mlp.c_proj, "weight")):
        weight = getattr(module, name).detach().as_subclass(Quantized)
        delattr(module, name)
        setattr(module, name, weight)
    tower(images)
    assert called == [96, 32]


def test_second_derivatives_without_the_custom_functions():
    tower = PETower(ARCH, memory_efficient=False)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        (gradient,) = torch.autograd.grad(tower(images)[0].sum(), images, create_graph=True)
        gradient.square().sum().backward()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 12), (torch.bfloat16, 11.5)])
def test_what_a_block_keeps(dtype, count):
    """Each block saves twelve tensors of the token width; plain PyTorch functions would save 18.

    On a CPU in bfloat16 it also keeps the output of the GELU and the attention's weights, here as many as channels of
    a token, and saves the memory of ``count`` tensors in float32.
    """
    tower = PETower(ARCH).train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()}
    kept = {}

    def remember(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive, so that no other takes its place
        return tensor

    tokens = torch.randn(2, 1, 64, 32, requires_grad=True)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor), autocast:
        tower.transformer.resblocks[0](tokens, tower.transformer.rotary_table((8, 8), tokens.device))
    unit = 2 * 64 * 32 * 4
    large = [size / unit for size, _ in kept.values() if size >= unit / 2]
    assert sum(large) == count
