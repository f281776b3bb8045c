"""FrozenTower: no autograd, no parameters, loading and comparison of weights."""

import pytest
import torch
from helpers.tiny_probe import ARCH, build, write_tower

from pe_dense.backbones import FrozenTower, load_tower
from pe_dense.utils import CheckpointError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("tower") / "tower.pth")


def frozen(weights=None, **options):
    init_cfg = weights and dict(type="Pretrained", checkpoint=str(weights))
    tower = FrozenTower(ARCH, init_cfg=init_cfg, **options)
    tower.init_weights()
    return tower


def test_maps_are_the_towers(weights):
    tower = frozen(weights, out_indices=(2, 0))
    images = torch.randn(2, 3, 16, 24)
    maps = tower(images)
    expected = load_tower(ARCH, weights, out_indices=(2, 0))(images)
    for a, b in zip(maps, expected, strict=True):
        assert torch.equal(a, b)
    assert [index for index, _ in tower.iter_intermediates(images)] == [0, 2]
    assert tower.out_channels == 16


def test_class_token_is_no_patch(tmp_path):
    arch = dict(ARCH, use_cls_token=True)
    assert FrozenTower(arch)(torch.randn(1, 3, 16, 24))[0].shape == (1, 16, 4, 6)


def test_nothing_to_learn_or_to_save(weights):
    tower = frozen(weights).train()
    assert not list(tower.parameters())
    assert not tower.tower.training
    maps = tower(torch.randn(1, 3, 16, 16, requires_grad=True))
    assert not maps[0].requires_grad
    assert set(tower.state_dict()) == {"taps", "weights"}
    assert sum(value.numel() for value in tower.state_dict().values()) < 60
    for _ in tower.iter_intermediates(torch.randn(1, 3, 16, 16)):
        assert torch.is_grad_enabled()  # for the heads, between taps


def test_bfloat16_stays_and_maps_are_float32(weights):
    tower = frozen(weights, dtype="bfloat16").to("cpu").float()
    assert {parameter.dtype for parameter in tower.tower.parameters()} == {torch.bfloat16}
    images = torch.randn(1, 3, 16, 16)
    (feature_map,) = tower(images)
    (exact,) = frozen(weights)(images)
    assert feature_map.dtype == torch.float32
    assert not torch.equal(feature_map, exact)
    torch.testing.assert_close(feature_map, exact, atol=0.1, rtol=0.1)


def test_random_weights_follow_the_seed_alone():
    torch.manual_seed(5)
    first = frozen()
    torch.randn(3)
    assert torch.equal(frozen().weights, first.weights)
    torch.manual_seed(6)
    assert not torch.equal(frozen().weights, first.weights)


def test_every_block():
    assert frozen(out_indices=None).out_indices == (0, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(out_indices=(3,)), r"block 3 is out of range for 3 blocks; allowed are -3\.\.2"),
        (dict(dtype="int8"), "int8"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        frozen(**options)


def test_loading_a_probe_brings_its_tower_in(weights):
    state = build("segmentation", "Probe", (1,), weights).state_dict()
    init_cfg = dict(type="Pretrained", checkpoint=str(weights))
    tower = FrozenTower(ARCH, out_indices=(1,), init_cfg=init_cfg)
    tower.load_state_dict({key: state[f"backbone.{key}"] for key in ("taps", "weights")})
    assert torch.equal(tower.weights, frozen(weights).weights)
    tower(torch.randn(1, 3, 16, 16))


def test_other_layers_are_refused(weights):
    state = frozen(weights, out_indices=(1,)).state_dict()
    with pytest.raises(
        CheckpointError, match=r"trained on blocks \[1\], the config has \[2\]: set model\.backbone\.out_indices"
    ):
        frozen(weights, out_indices=(2,)).load_state_dict(state)


def test_another_tower_is_refused_but_not_another_precision(weights, tmp_path):
    state = frozen(weights).state_dict()
    frozen(weights, dtype="bfloat16").load_state_dict(state)
    other = write_tower(tmp_path / "other.pth", seed=2)
    with pytest.raises(CheckpointError, match=r"trained on a backbone with other weights .*other\.pth"):
        frozen(other).load_state_dict(state)
