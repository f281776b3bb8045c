"""Attention written out equals the fused function, and is chosen by length, dtype and device."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pe_dense.backbones import PETower, attention, transformer
from pe_dense.backbones.attention import attend, attend_written_out

ARCH = dict(
    patch_size=4, width=32, layers=2, heads=2, mlp_ratio=4.0, image_size=32, use_ln_post=False, pool_type="none"
)


def inputs(dtype, queries=5, keys=5):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for length in (queries, keys, keys)
    ]


MASK = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
MASK[1, :, 2] = False  # a query without any key
CASES = {
    "self-attention": (5, dict()),
    "one query": (1, dict()),
    "mask": (5, dict(attn_mask=MASK)),
}


@pytest.mark.parametrize(("queries", "options"), CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("memory_efficient", [True, False])
def test_written_out_equals_fused(memory_efficient, queries, options, dtype, tolerance):
    """Outputs and gradients; in bfloat16 up to a few of its roundings, relative to the largest value."""
    weights = torch.randn(2, 3, queries, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    written_out = partial(attend_written_out, memory_efficient=memory_efficient)
    results = []
    for function, kind in ((written_out, dtype), (F.scaled_dot_product_attention, torch.float64)):
        leaves = [tensor.detach().to(kind).requires_grad_() for tensor in inputs(dtype, queries)]
        output = function(*leaves, **options)
        results.append([output, *torch.autograd.grad((output * weights).sum(), leaves)])
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("memory_efficient", [True, False])
def test_causal(memory_efficient):
    values = inputs(torch.bfloat16)
    output = attend(*values, is_causal=True, memory_efficient=memory_efficient)
    expected = F.scaled_dot_product_attention(*(value.float() for value in values), is_causal=True)
    assert not is_fused(output)
    torch.testing.assert_close(output.float(), expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("limit", [2**20, 2 * 7 * 5, 3 * 5, 1], ids=["whole", "heads", "queries", "query"])
@pytest.mark.parametrize("grad", [True, False])
def test_without_gradients(monkeypatch, limit, grad):
    """In parts of any size, of tensors of any layout: the heads, then the queries of a head, are divided unevenly."""
    monkeypatch.setattr(attention, "LOGITS_OF_A_PART", limit)
    q, k, v = (tensor.detach().transpose(1, 2).contiguous().transpose(1, 2) for tensor in inputs(torch.bfloat16, 7))
    with torch.set_grad_enabled(grad):
        output = attend(q, k, v)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert output.dtype == torch.bfloat16 and not output.requires_grad
    assert (output - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_without_gradients_but_masked():
    """The fused function, whose bfloat16 rounding differs."""
    values = [tensor.detach() for tensor in inputs(torch.bfloat16)]
    for options in (dict(is_causal=True), dict(attn_mask=MASK)):
        assert torch.equal(attend(*values, **options), F.scaled_dot_product_attention(*values, **options))


def is_fused(output):
    return "Scaled" in type(output.grad_fn).__name__


def test_choice_by_dtype_length_and_gradients(monkeypatch):
    monkeypatch.setattr(attention, "MAX_TOKENS_WRITTEN_OUT", 5)
    assert not is_fused(attend(*inputs(torch.bfloat16)))
    assert is_fused(attend(*inputs(torch.bfloat16, keys=6)))
    assert is_fused(attend(*inputs(torch.float32)))
    monkeypatch.setattr(attention, "attend_written_out", None)
    with torch.no_grad():
        attend(*inputs(torch.bfloat16))
    attend(*(tensor.detach() for tensor in inputs(torch.bfloat16)))
    monkeypatch.setattr(attention, "attend_in_parts", None)
    with torch.no_grad():
        attend(*inputs(torch.float32))


def test_second_derivatives_without_the_custom_function():
    q, k, v = inputs(torch.bfloat16)
    (gradient,) = torch.autograd.grad(attend(q, k, v, memory_efficient=False).sum(), q, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), k)
    assert second.abs().max() > 0


def test_attention_pooling(monkeypatch):
    """Pooling in bfloat16 without ``nn.MultiheadAttention``'s forward pass: outputs and gradients."""
    torch.manual_seed(0)
    pool = transformer.AttentionPool(32, 2)
    for parameter in (pool.probe, pool.attn.in_proj_bias, pool.attn.out_proj.bias):
        nn.init.normal_(parameter)
    tokens = torch.randn(3, 7, 32, requires_grad=True)
    weights = torch.randn(3, 32)
    results = []
    for enabled in (True, False):
        calls = []
        handle = pool.attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = pool(tokens).float()
        handle.remove()
        assert len(calls) == (0 if enabled else 1)
        results.append([output, *torch.autograd.grad((output * weights).sum(), [tokens, *pool.parameters()])])
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).norm() < 2e-2 * exact.norm()


TOWERS = {
    "class token": dict(arch=dict(ARCH, use_cls_token=True)),
    "windows": dict(arch=ARCH, window_size=4, global_blocks=(1,), pos_embed="tile"),
    "windows that do not divide the grid": dict(arch=ARCH, window_size=3, global_blocks=(1,), pos_embed="tile"),
}


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS)
def test_towers_train_alike(options, monkeypatch):
    """Under bfloat16 autocast, gradients of a tower differ from float32 as little as with the fused function."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def gradient(enabled):
        torch.manual_seed(0)
        tower = PETower(**options).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = tower.forward_features(images).float().square().mean()
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(tower.parameters()))])

    exact, written_out = gradient(False), gradient(True)
    monkeypatch.setattr(attention, "MAX_TOKENS_WRITTEN_OUT", 0)
    assert torch.equal(gradient(False), exact)
    fused = gradient(True)
    assert not torch.equal(fused, written_out)
    errors = [(grad - exact).norm() / exact.norm() for grad in (fused, written_out)]
    assert errors[1] < 1.5 * errors[0] < 2e-2
