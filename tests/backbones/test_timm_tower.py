"""TimmTower: the second implementation of the backbone protocol, on small random models of timm."""

import pytest
import timm
import torch
from mmengine.registry import MODELS

from pe_dense.backbones import TimmTower
from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import InputError

# Class token and four registers; class token; no prefix token, with attention pooling (SigLIP's layout).
NAMES = {"vit_small_patch16_dinov3": 5, "test_vit": 1, "vit_base_patch16_siglip_224": 0}


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    """Reduce models to two blocks; only the layout matters, and ViT-B would be slow."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **{"depth": 2} | options))


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(name="test_vit", **options):
    torch.manual_seed(0)
    return TimmTower(name, **options).eval()


@pytest.mark.parametrize(("name", "prefix"), NAMES.items())
@torch.no_grad()
def test_maps_equal_those_of_timm(name, prefix, images):
    tower = build(name, out_indices=(1, 0))
    expected = tower.model.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
    assert tower.num_prefix_tokens == prefix
    last, first = tower(images)
    assert torch.equal(first, expected[0])
    assert torch.equal(last, expected[1])
    assert last.shape == (2, tower.embed_dim, 4, 6)
    (normed, tokens), *_ = tower.forward_intermediates(
        images, [-1], norm=True, output_fmt="NLC", return_prefix_tokens=True
    )
    whole = tower.model.forward_features(images)
    assert torch.allclose(torch.cat([tokens, normed], dim=1), whole, atol=1e-6)
    assert tower.forward_pooled(images).shape == (2, tower.embed_dim)


def test_attributes_come_from_timm():
    tower = build("vit_small_patch16_dinov3")
    assert (tower.embed_dim, tower.num_layers, tower.patch_size, tower.image_size) == (384, 2, 16, 256)
    assert tower.mean == pytest.approx((123.675, 116.28, 103.53))
    assert tower.std == pytest.approx((58.395, 57.12, 57.375))
    assert tower.out_channels == 384
    assert build("test_vit").mean == (127.5, 127.5, 127.5)


def test_layer_ids_and_groups():
    tower = build("test_vit")
    ids = {name: tower.layer_id(name) for name, _ in tower.named_parameters()}
    assert ids["model.cls_token"] == ids["model.pos_embed"] == ids["model.patch_embed.proj.weight"] == 0
    assert ids["model.blocks.0.attn.qkv.weight"] == 1
    assert ids["model.blocks.1.mlp.fc2.bias"] == 2
    assert ids["model.norm.weight"] == 3
    assert len(list(tower.fsdp_units())) == 2
    assert {"model.pos_embed", "model.cls_token"} <= tower.no_weight_decay()
    with pytest.raises(KeyError, match="no parameter 'model.head.weight'"):
        tower.layer_id("model.head.weight")


def test_sizes(images):
    with pytest.raises(ValueError, match="multiple of the patch size 16"):
        build()(images[..., :60, :90])
    padded = build(pad_to_patch=True)
    assert padded(images[..., :60, :90])[0].shape == (2, 64, 4, 6)
    assert torch.equal(padded.pad_images(images[..., :60, :90])[..., 60:, :], torch.zeros(2, 3, 4, 96))


def test_models_of_one_size_say_so(images):
    tower = build()
    tower.dynamic = False
    with pytest.raises(ValueError, match="only accepts images of 160 x 160 px, got 64 x 96"):
        tower(images)


def test_frozen_and_pruned(images):
    tower = build(frozen=True).train()
    assert not tower.training
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    (first,) = tower.forward_intermediates(images, [0])
    tower.prune_intermediate_layers(0)
    assert len(tower.model.blocks) == 1
    assert torch.equal(tower.forward_intermediates(images, [0])[0], first)


def test_weights_of_a_local_file(tmp_path, images):
    source = build()
    path = tmp_path / "model.pth"
    torch.save(source.model.state_dict(), path)
    torch.manual_seed(1)
    tower = MODELS.build(
        dict(type="pe_dense.TimmTower", name="test_vit", init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    ).eval()
    with pytest.raises(RuntimeError, match="weights of timm/test_vit are not loaded"):
        tower(images)
    tower.init_weights()
    assert torch.equal(tower(images)[0], source(images)[0])


def test_weights_of_a_run(tmp_path, images):
    source = build()
    path = tmp_path / "iter_1.pth"
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in source.state_dict().items()}}, path)
    torch.manual_seed(1)
    tower = TimmTower("test_vit").eval()
    tower.load_pretrained(path)
    assert torch.equal(tower(images)[0], source(images)[0])


def test_weights_are_resampled_to_another_size(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(build().model.state_dict(), path)
    tower = build(img_size=64)
    tower.load_pretrained(path)
    assert tower.model.pos_embed.shape == (1, 4 * 4 + 1, 64)
    assert tower.image_size == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.zeros(1)}, "timm/test_vit"),
        ({"backbone.model.norm.weight": torch.zeros(64)}, "timm/test_vit"),
        ({}, "not a state dict of timm/test_vit"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, content, message):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        build().load_pretrained(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vitt", r"timm has no model 'test_vitt'; did you mean test_vit, "),
        ("vit_small_dinov3", r"timm has no model 'vit_small_dinov3'; did you mean vit_small_patch16_dinov3, "),
        ("xyzzy", r"timm has no model 'xyzzy': timm.list_models\(\) lists all names"),
        ("test_vit.in22k", r"timm has no weights 'in22k' of test_vit; it has: test_vit.r160_in1k"),
        ("test_resnet", "timm's test_resnet is not a plain vision transformer: it has no blocks"),
        (
            "vit_tiny_r_s16_p8_224",
            "is not a plain vision transformer: its input goes through a HybridEmbed, not",
        ),
        ("xcit_nano_12_p16_224", "its input goes through a ConvPatchEmbed"),
        ("cait_xxs24_224", "its forward_intermediates returns no class tokens"),
        ("repvit_m1", r"timm's repvit_m1 cannot be created: .* unexpected keyword argument 'drop_path_rate'"),
    ],
)
def test_models_that_are_not_supported(name, message, monkeypatch):
    monkeypatch.undo()
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build(name)


def test_masks_are_refused(images):
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="does not support masked patches"):
        build().forward_intermediates(images, [-1], mask=mask, mask_token=torch.zeros(64))
    with pytest.raises(ValueError, match="attention maps are not available"):
        build().attention_maps(images, (0, 0))
