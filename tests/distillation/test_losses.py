"""Losses against independent implementations in NumPy."""

import numpy as np
import pytest
import torch

from pe_dense.distillation.losses import cosine, effective_rank, locality_loss, pairwise_loss


def tokens(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosines(x):
    x = x.double().numpy()
    x = x / np.sqrt((x**2).sum(-1, keepdims=True))
    return np.einsum("bnc,bmc->bnm", x, x)


def test_cosine():
    student, teacher = tokens(3, 7, 5, seed=0) * 4, tokens(3, 7, 5, seed=1) + 0.3
    s, t = student.double().numpy(), teacher.double().numpy()
    each = (s * t).sum(-1) / np.sqrt((s**2).sum(-1) * (t**2).sum(-1))
    assert cosine(student, teacher).item() == pytest.approx(each.mean(), abs=1e-6)
    assert cosine(student, 3 * student).item() == pytest.approx(1, abs=1e-6)
    assert cosine(student, -student).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("temperature", [20.0, 3.0])
def test_locality_loss(temperature):
    student = tokens(2, 6, 5, seed=0) * 3
    sam = tokens(2, 1, 9, seed=1) + 0.3 * tokens(2, 6, 9, seed=2)  # alike, or the teacher would be the unit matrix
    wanted = np.exp(temperature * (cosines(sam) - 1))
    assert 0.001 < np.median(wanted) < 0.9
    expected = ((cosines(student) - wanted) ** 2).mean()
    assert locality_loss(student, sam, temperature).item() == pytest.approx(expected, abs=1e-6)
    if temperature == 20.0:
        assert locality_loss(student, sam).item() == pytest.approx(expected, abs=1e-6)


def test_pairwise_loss():
    student, teacher = tokens(2, 6, 5, seed=0), tokens(2, 6, 8, seed=1)
    expected = ((cosines(student) - cosines(teacher)) ** 2).mean()
    assert pairwise_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_losses_are_computed_in_float32_under_autocast():
    student, sam = tokens(2, 16, 32, seed=0), tokens(2, 16, 24, seed=1)
    expected = [cosine(student, student + sam[..., :1]), locality_loss(student, sam), pairwise_loss(student, sam)]
    with torch.autocast("cpu", torch.bfloat16):
        given = [cosine(student, student + sam[..., :1]), locality_loss(student, sam), pairwise_loss(student, sam)]
    assert given == expected


def test_effective_rank_counts_directions():
    basis = torch.linalg.qr(tokens(8, 8, seed=0)).Q
    even = basis[:5].repeat(4, 1)[None]
    assert effective_rank(even).item() == pytest.approx(5, abs=1e-3)
    assert effective_rank(even[:, :1].expand(1, 300, 8)).item() == pytest.approx(1, abs=1e-2)
    # of singular values 2, 1, 1: shares 1/2, 1/4, 1/4, so exp(ln 2 / 2 + ln 4 / 2)
    uneven = torch.stack([2 * basis[0], basis[1], basis[2]])[None]
    assert effective_rank(uneven).item() == pytest.approx(8**0.5, abs=1e-4)
    assert effective_rank(tokens(4, 200, 64, seed=1), count=10).item() <= 10
    assert effective_rank(even * torch.nan).isnan()


@pytest.mark.parametrize("loss", [cosine, locality_loss, pairwise_loss])
def test_tokens_that_do_not_belong_together(loss):
    with pytest.raises(ValueError, match=r"\(1, 4, 8\).*\(1, 9, 8\)"):
        loss(torch.ones(1, 4, 8), torch.ones(1, 9, 8))
