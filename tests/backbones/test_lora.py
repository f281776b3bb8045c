"""LoRA adapters of PE towers and timm models: what trains, equality after merging, errors."""

import sys

import pytest
import timm
import torch
from helpers.tiny_towers import ARCH, tiny_tower

from pe_dense.backbones import PETower, TimmTower, load_tower, save_weights
from pe_dense.backbones.lora import describe_trainable
from pe_dense.utils.errors import InputError, UserError
from pe_dense.utils.lora_state import merge_lora

WINDOWS = dict(window_size=2, global_blocks=[1], pos_embed="tile", rope_reference_grid=4)
# timm's layouts of the fused projection: a plain layer (DINOv3), and EVA's, whose forward adds biases to its weight.
OF_TIMM = ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "beitv2_base_patch16_224"]


@pytest.fixture
def small_timm(monkeypatch):
    create = timm.create_model
    small = dict(depth=2, embed_dim=32, num_heads=2)
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **small | options))


def adapted_tower(lora, **options):
    """The tower of :func:`tiny_tower` with adapters."""
    tower = PETower(**{"arch": ARCH} | options, lora=lora).eval()
    tower.load_pretrained("plain.pth", tiny_tower(**options).state_dict())
    return tower


def images(side=16):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def train_adapters(tower):
    """Set the factors of the adapters to values as after training, and compute gradients."""
    for number, (name, parameter) in enumerate(tower.named_parameters()):
        if "lora_" in name:
            generator = torch.Generator().manual_seed(number)
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def trained(tower):
    return {name for name, parameter in tower.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("options", [{}, WINDOWS, dict(with_cp=True)], ids=["global", "windows", "checkpointing"])
def test_merged_weights_give_the_same_maps(options):
    plain = tiny_tower(**options)
    tower = adapted_tower(dict(rank=2), **options)
    assert torch.equal(tower(images())[0], plain(images())[0])  # the second factor is 0 at first
    train_adapters(tower)
    adapted = tower.train()(images())[0]
    plain.load_state_dict(merge_lora(tower.state_dict(), "state"))
    merged = plain(images())[0]
    assert (adapted - merged).abs().max() < 1e-5
    assert (merged - tiny_tower(**options)(images())[0]).abs().max() > 0.1
    adapted.square().sum().backward()
    assert all(tower.get_parameter(name).grad.abs().sum() > 0 for name in trained(tower))


def test_the_merged_weight_is_that_of_the_paper():
    tower = adapted_tower(dict(rank=2, alpha=6))
    train_adapters(tower)
    state = tower.state_dict()
    layer = "transformer.resblocks.1.attn.in_proj"
    down, up = state[f"{layer}.lora_A.default.weight"], state[f"{layer}.lora_B.default.weight"]
    merged = merge_lora(state, "state")
    torch.testing.assert_close(merged[f"{layer}_weight"], state[f"{layer}.base_layer.weight"] + 6 / 2 * up @ down)
    assert merged.keys() == tiny_tower().state_dict().keys()


def test_only_adapters_of_linear_layers_in_blocks_are_trained():
    tower = adapted_tower(dict(rank=2))
    layers = ["attn.in_proj", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"]
    assert trained(tower) == {
        f"transformer.resblocks.{block}.{layer}.lora_{factor}.default.weight"
        for block in range(3)
        for layer in layers
        for factor in "AB"
    }
    # 3 blocks, rank 2: (32 + 96) + (32 + 32) + 2 * (32 + 64) channels
    assert sum(tower.get_parameter(name).numel() for name in trained(tower)) == 3 * 2 * 384
    assert [tower.layer_id(f"transformer.resblocks.{n}.mlp.c_fc.lora_A.default.weight") for n in range(3)] == [1, 2, 3]
    whole = sum(parameter.numel() for parameter in tiny_tower().parameters())
    assert f"LoRA of rank 2: 2,304 trained parameters in the backbone, {2304 / whole:.1%} of its" in describe_trainable(
        torch.nn.Sequential(tower, torch.nn.Linear(3, 1))
    )
    assert describe_trainable(tiny_tower()) is None


@pytest.mark.parametrize("name", OF_TIMM)
def test_every_adapter_of_a_timm_model_takes_part(small_timm, name):
    torch.manual_seed(0)
    plain = TimmTower(name, img_size=32 if "beit" in name else None)
    tower = TimmTower(name, img_size=32 if "beit" in name else None, lora=dict(rank=2))
    for key, parameter in plain.named_parameters():
        if key.endswith(("gamma", "gamma_1", "gamma_2")):  # LayerScale, which hides the blocks at first
            parameter.data.fill_(1.0)
    tower.load_pretrained("plain.pth", plain.state_dict())
    side = 2 * tower.patch_size
    train_adapters(tower)
    adapted = tower(images(side))[0]
    adapted.square().sum().backward()
    without = [
        n for n in trained(tower) if tower.get_parameter(n).grad is None or not tower.get_parameter(n).grad.any()
    ]
    assert without == []
    assert trained(tower) and all("lora_" in n for n in trained(tower))
    before = plain(images(side))[0]
    # A checkpoint of a run, in which the backbone is a part of a model.
    state = {f"backbone.{key}": value for key, value in tower.state_dict().items()}
    plain.load_pretrained("run.pth", dict(state_dict=state))
    assert (plain(images(side))[0] - adapted).abs().max() < 1e-4
    assert (before - adapted).abs().max() > 1e-2


def test_pretrained_weights_are_loaded_under_the_adapters(tmp_path):
    source = tiny_tower()
    save_weights(source, tmp_path / "tower.pt")
    start = dict(type="Pretrained", checkpoint=str(tmp_path / "tower.pt"))
    tower = PETower(ARCH, lora=dict(rank=2), init_cfg=start).eval()
    tower.init_weights()
    assert torch.equal(tower(images())[0], source(images())[0])
    train_adapters(tower)
    save_weights(tower, tmp_path / "adapted.pt")
    loaded = load_tower(ARCH, tmp_path / "adapted.pt")
    assert (loaded(images())[0] - tower(images())[0]).abs().max() < 1e-5


def test_the_hub_gets_merged_weights(tmp_path):
    tower = adapted_tower(dict(rank=2))
    train_adapters(tower)
    tower.save_pretrained(tmp_path / "hub")
    loaded = type(tower).from_pretrained(tmp_path / "hub")
    assert loaded.lora is None
    assert (loaded(images())[0] - tower(images())[0]).abs().max() < 1e-5


def test_another_scaling_than_that_of_the_checkpoint_is_refused():
    state = adapted_tower(dict(rank=2, alpha=8)).state_dict()
    with pytest.raises(InputError, match=r"alpha / rank = 4, the config has 2: set model.backbone.lora.alpha=8"):
        adapted_tower(dict(rank=2)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rank=0), "rank of LoRA is a whole number from 1 to 32"),
        (dict(rank=33), "from 1 to 32, the width of .* got 33"),
        (dict(rank=True), "rank of LoRA"),
        (dict(alpha=2), "lora is dict"),
        (dict(rank=2, r=2), "lora is dict"),
        (dict(rank=2, alpha=-1), "alpha of LoRA must be a positive number"),
        (dict(rank=2, dropout=1), "dropout of LoRA must be a number from 0 to below 1"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        PETower(ARCH, lora=options)


def test_a_frozen_tower_is_refused():
    with pytest.raises(InputError, match="which is frozen: set frozen=False, or leave lora out"):
        PETower(ARCH, lora=dict(rank=2), frozen=True)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"LoRA needs the package peft: pip install 'pe_dense\[lora\]'"):
        PETower(ARCH, lora=dict(rank=2))
