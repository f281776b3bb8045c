"""Attention written out equals the fused function, and is chosen by length, dtype and device."""

import pytest
import torch
import torch.nn.functional as F

from pe_dense.backbones import PETower, attention
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
    "self-attention": dict(),
    "causal": dict(is_causal=True),
    "mask": dict(attn_mask=MASK),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
def test_written_out_equals_fused(options, dtype, tolerance):
    """Outputs and gradients; in bfloat16 up to a few of its roundings, relative to the largest value."""
    weights = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for function, kind in ((attend_written_out, dtype), (F.scaled_dot_product_attention, torch.float64)):
        values = [tensor.to(kind) for tensor in inputs(dtype)]
        leaves = [value.detach().requires_grad_() for value in values]
        output = function(*leaves, **options)
        results.append([output, *torch.autograd.grad((output * weights).sum(), leaves)])
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_one_query():
    q, k, v = inputs(torch.float64, queries=1)
    torch.testing.assert_close(attend_written_out(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-12, rtol=0)


def is_fused(output):
    return "Scaled" in type(output.grad_fn).__name__


def test_choice_by_dtype_length_and_gradients(monkeypatch):
    monkeypatch.setattr(attention, "MAX_TOKENS_WRITTEN_OUT", 5)
    assert not is_fused(attend(*inputs(torch.bfloat16)))
    assert is_fused(attend(*inputs(torch.bfloat16, keys=6)))
    assert is_fused(attend(*inputs(torch.float32)))
    called = []
    monkeypatch.setattr(attention, "attend_written_out", lambda *_, **__: called.append(1))
    with torch.no_grad():
        attend(*inputs(torch.bfloat16))
    attend(*(tensor.detach() for tensor in inputs(torch.bfloat16)))
    assert not called


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
