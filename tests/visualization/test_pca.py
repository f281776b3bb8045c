"""Principal components equal those of the covariance matrix and show known structure."""

import pytest
import torch

from pe_dense.visualization import fit_basis, low_pass


def decaying(count=4, channels=96, height=12, width=10, power=0.7, seed=0):
    """Maps whose directions have falling variance, far from the origin, as a tower's are."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, channels + 1).float() ** -power
    turn = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q * scale
    mean = 3 * torch.randn(channels, 1, 1, generator=generator)
    return torch.einsum("nkhw,ck->nchw", torch.randn(count, channels, height, width, generator=generator), turn) + mean


def exact(features, mask=None):
    """Mean and the leading eigenvectors (3, C) of the covariance of smoothed tokens, in float64."""
    tokens = torch.cat([low_pass(x.double()).movedim(1, -1).reshape(-1, x.shape[1]) for x in features])
    if mask is not None:
        tokens = tokens[torch.cat([m.flatten() for m in mask])]
    mean = tokens.mean(dim=0)
    vectors = torch.linalg.eigh((tokens - mean).T @ (tokens - mean)).eigenvectors[:, -3:].flip(1).T
    sign = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True)).sign()
    return mean.float(), (vectors * sign).float()


@pytest.mark.parametrize("channels", [3, 5, 40, 96])
def test_equals_the_eigenvectors(channels):
    features = decaying(channels=channels)
    basis, (mean, components) = fit_basis(features), exact([features])
    torch.testing.assert_close(basis.mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(basis.components, components, atol=2e-3, rtol=0)


def test_equals_the_eigenvectors_where_they_hardly_stand_out():
    features = torch.randn(2, 48, 20, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fit_basis(features).components, exact([features])[1], atol=2e-3, rtol=0)


def test_a_mask_leaves_tokens_out():
    features = decaying()
    mask = torch.zeros(4, 12, 10, dtype=torch.bool)
    mask[:, 3:9, 2:8] = True
    basis, (mean, components) = fit_basis(features, mask), exact([features], [mask])
    torch.testing.assert_close(basis.mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(basis.components, components, atol=2e-3, rtol=0)
    assert not torch.allclose(basis.components, fit_basis(features).components, atol=0.05)


def test_maps_of_several_sizes():
    features = [decaying(height=12, width=10), decaying(count=1, height=5, width=21, seed=1) + 0.5]
    basis, (mean, components) = fit_basis(features), exact(features)
    torch.testing.assert_close(basis.mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(basis.components, components, atol=2e-3, rtol=0)


def test_known_structure_is_found():
    """A ramp from left to right along one direction, half as strong from top to bottom, weakly in rings."""
    directions = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(0))).Q.T
    across = torch.linspace(-1, 1, 16).expand(16, 16)
    rings = torch.cos(6 * (across**2 + across.T**2).sqrt())
    rings = 0.1 * (rings - rings.mean())
    features = torch.einsum("khw,kc->chw", torch.stack([across, 0.5 * across.T, rings]), directions)[None]
    basis = fit_basis(features)
    cosines = (basis.components * directions).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(3), atol=1e-4, rtol=0)
    first = basis.scores(features)[0, 0]
    slope = first[8].diff()
    assert (slope.abs() > 0).all()
    assert len(slope.sign().unique()) == 1
    torch.testing.assert_close(first[0], first[-1], atol=0.02, rtol=0)


def test_range_is_of_quantiles():
    features = decaying(count=2, height=50, width=50)
    features[0, :, 0, 0] *= 100  # one wild token must not take the colors of all others
    basis = fit_basis(features)
    unit = basis.unit_scores(features)
    assert ((unit >= 0) & (unit <= 1)).float().mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.98] * 3, abs=2e-3)
    assert unit.abs().max() > 5


def test_order_and_repetition_change_nothing():
    features = decaying(channels=64)
    first, again, turned = fit_basis(features), fit_basis(features), fit_basis(features[[2, 0, 3, 1]])
    for name in ("mean", "components", "low", "high"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(turned, name))
    state = torch.random.get_rng_state()
    fit_basis(features)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_largest_entry_is_positive():
    components = fit_basis(decaying()).components
    assert (components.gather(1, components.abs().argmax(dim=1, keepdim=True)) > 0).all()
    torch.testing.assert_close(components @ components.T, torch.eye(3), atol=1e-5, rtol=0)


def test_signs_follow_another_basis():
    features = decaying()
    basis = fit_basis(features)
    wanted = basis.scores(features) * torch.tensor([-1.0, 1.0, -1.0])[:, None, None]
    turned = basis.align_signs([basis.scores(features)], [wanted])
    torch.testing.assert_close(turned.scores(features), wanted)
    before, after = basis.unit_scores(features), turned.unit_scores(features)
    torch.testing.assert_close(after[:, 0], 1 - before[:, 0])
    torch.testing.assert_close(after[:, 1], before[:, 1])


def test_features_without_any_spread_are_gray_middle():
    basis = fit_basis(torch.full((1, 5, 3, 3), 7.0))
    assert torch.equal(basis.unit_scores(torch.full((1, 5, 3, 3), 7.0)), torch.full((1, 3, 3, 3), 0.5))


def test_half_precision():
    features = decaying().bfloat16()
    torch.testing.assert_close(fit_basis(features).components, fit_basis(features.float()).components)


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.zeros(5, 4, 4), None, r"features must be \(N, C, H, W\) .* got \(5, 4, 4\)"),
        (torch.zeros(1, 2, 4, 4), None, r"at least 3, got \(1, 2, 4, 4\)"),
        ([torch.zeros(1, 5, 4, 4), torch.zeros(1, 6, 4, 4)], None, r"one C .* got \(1, 5, 4, 4\), \(1, 6, 4, 4\)"),
        (torch.zeros(1, 5, 4, 4), torch.ones(1, 4, 4), r"mask must be bool \(1, 4, 4\) .* got torch.float32"),
        (torch.zeros(1, 5, 4, 4), torch.ones(1, 4, 5).bool(), r"mask must be bool \(1, 4, 4\) .* got .* \(1, 4, 5\)"),
        (torch.zeros(1, 5, 4, 4), torch.zeros(1, 4, 4).bool(), "0 tokens are too few"),
        (torch.zeros(1, 5, 1, 3), None, "3 tokens are too few"),
        ([torch.zeros(1, 5, 4, 4)] * 2, [None], "1 masks for 2 maps"),
    ],
)
def test_bad_input(features, mask, message):
    with pytest.raises(ValueError, match=message):
        fit_basis(features, mask)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(value):
    """NaN is refused anywhere: also outside of the mask, and with a basis of other features."""
    features, mask = decaying(), torch.ones(4, 12, 10, dtype=torch.bool)
    basis = fit_basis(features)
    features[2, 7, 3, 3], mask[2, 3, 3] = value, False
    for refused in (lambda: fit_basis(features), lambda: fit_basis(features, mask), lambda: basis.scores(features)):
        with pytest.raises(ValueError, match="NaN or infinite"):
            refused()


def test_a_basis_of_other_features_is_refused():
    with pytest.raises(ValueError, match="features have 5 channels, the basis has 96"):
        fit_basis(decaying()).scores(torch.zeros(1, 5, 4, 4))
