"""Losses against independent implementations in NumPy."""

import numpy as np
import pytest
import torch

from pe_dense.distillation.losses import cosine, effective_rank, locality_loss, pairwise_loss, target_cosine


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


def test_target_cosine():
    """Of tokens (3, 4), (1, 0), (5, 5): cosines 0.6 and sqrt(1/2) for targets of length 1 and 1/2; one is ignored."""
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [5.0, 5.0]]], requires_grad=True)
    targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.5]]])
    found = target_cosine(student, targets)
    assert found.item() == pytest.approx((0.6 + 0.5 * 0.5**0.5) / 1.5, abs=1e-6)
    assert target_cosine(student, 4 * targets).item() == pytest.approx(found.item(), abs=1e-6)
    assert target_cosine(targets.flip(-1), -targets.flip(-1)).item() == pytest.approx(-1, abs=1e-6)
    found.backward()
    assert student.grad.norm(dim=-1).gt(0).tolist() == [[True, False, True]]


def test_target_cosine_without_targets():
    student = tokens(1, 3, 2, seed=0).requires_grad_()
    found = target_cosine(student, torch.zeros(1, 3, 2))
    found.backward()
    assert found.item() == 0 and not student.grad.any()


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

    def values():
        teacher = student + sam[..., :1]
        pairs = [loss(student, sam) for loss in (locality_loss, pairwise_loss)]
        return [*pairs, *(loss(student, teacher) for loss in (cosine, target_cosine))]

    expected = values()
    with torch.autocast("cpu", torch.bfloat16):
        given = values()
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


@pytest.mark.parametrize("loss", [cosine, locality_loss, pairwise_loss, target_cosine])
def test_tokens_that_do_not_belong_together(loss):
    with pytest.raises(ValueError, match=r"\(1, 4, 8\).*\(1, 9, 8\)"):
        loss(torch.ones(1, 4, 8), torch.ones(1, 9, 8))
