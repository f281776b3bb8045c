"""Locked-image tuning: vectors, what is trained, text tower of Core, runs and what `load_lit` makes of them."""

import pytest
import torch
import torch.nn.functional as F
from helpers.contrastive_processes import batch
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from mmengine.model import BaseDataPreprocessor

from pe_dense.backbones import PETower
from pe_dense.engine.config import load_config
from pe_dense.engine.runner import load_model_state
from pe_dense.language import LiT, load_lit, save_clip
from pe_dense.language.zero_shot import class_embeddings
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError, read_checkpoint
from pe_dense.utils.errors import InputError

SPATIAL = {key: value for key, value in VISION.items() if key != "output_dim"} | dict(
    use_ln_post=False, pool_type="none"
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    torch.save(PETower(SPATIAL).state_dict(), tmp_path / "spatial.pt")
    return str(tmp_path / "spatial.pt")


def build(weights=None, arch=None, text=None, **options):
    torch.manual_seed(0)
    init_cfg = dict(type="Pretrained", checkpoint=weights) if weights else None
    backbone = dict(type="pe_dense.FrozenTower", arch=arch or SPATIAL, init_cfg=init_cfg)
    model = LiT(
        backbone, 32, text or dict(TEXT), data_preprocessor=BaseDataPreprocessor(), **(dict(drop_path=0.0) | options)
    )
    model.init_weights()
    return model


def test_vectors(weights):
    model = build(weights).eval()
    images, tower = torch.randn(2, 3, 32, 32), PETower(SPATIAL).eval()
    tower.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        tokens = model.head(tower.forward_features(images))  # class token first
        expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)
        torch.testing.assert_close(model.encode_image(images), expected)
        patches, grid = model.patch_embeddings(images)
        torch.testing.assert_close(patches, F.normalize(tokens[:, 1:], dim=-1))
        assert grid == (4, 4)
        words = class_embeddings(model, ["star", "ring"], "none")
    assert words.shape == (2, 64)  # class token and mean of 32 channels each
    torch.testing.assert_close(model.patch_text_embeddings(["star", "ring"], "none"), F.normalize(words[:, 32:], dim=1))


def test_without_a_class_token_patches_have_the_whole_vector():
    model = build(arch=dict(SPATIAL, use_cls_token=False)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(images), model.tokens(images)[1].mean(1))
    assert model.patch_text_embeddings(["star"]).shape == (1, 32)


def test_timm_backbones_have_a_head_too():
    arch = "timm/vit_tiny_patch16_224.augreg_in21k"
    model = build(arch=arch).eval()
    assert model.encode_image(torch.randn(1, 3, 32, 32)).shape == (1, 384)


def test_only_head_and_text_are_trained_and_saved(weights):
    model = build(weights).train()
    before = {name: value.clone() for name, value in model.backbone.tower.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(**batch(), mode="loss")["loss_contrastive"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, value in model.backbone.tower.state_dict().items():
        assert torch.equal(value, before[name])
    assert {name.partition(".")[0] for name in model.state_dict()} == {"backbone", "head", "text_tower", "logit_scale"}
    assert not any(name.startswith("backbone") for name, _ in model.named_parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_text_tower_of_a_core_model(weights, tmp_path):
    clip = tiny_clip()
    save_clip(clip, tmp_path / "core.safetensors")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "core.safetensors"))
    model = build(weights, init_cfg=init_cfg)
    state = clip.state_dict()
    for name, value in model.text_tower.state_dict().items():
        if name != "text_projection":  # of 64 channels here, of 16 there
            assert torch.equal(value, state[name]), name
    same = build(weights, arch=dict(SPATIAL), text=dict(TEXT, layers=1))
    with pytest.raises(CheckpointError, match="transformer.resblocks.1"):
        same.init_cfg, same._is_init = init_cfg, False
        same.init_weights()


def test_options_that_are_refused(weights):
    with pytest.raises(InputError, match="head_layers is at least 1"):
        build(head_layers=0)
    with pytest.raises(InputError, match="not a multiple of the patch size"):
        LiT(dict(type="pe_dense.FrozenTower", arch=SPATIAL), 30, dict(TEXT))
    with pytest.raises(InputError, match="backbone of LiT is a pe_dense.FrozenTower"):
        LiT(dict(type="pe_dense.PETower", arch=SPATIAL), 32, dict(TEXT))


def test_checkpoint_of_a_run(weights, tmp_path):
    model = build(weights).eval()
    config = (
        f"model = dict(type='pe_dense.LiT', image_size=32, text={TEXT}, drop_path=0.0, backbone=dict("
        f"type='pe_dense.FrozenTower', arch={SPATIAL}, init_cfg=dict(type='Pretrained', checkpoint='elsewhere')))"
    )

    def save(text):
        torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=text)), tmp_path / "run.pth")
        return tmp_path / "run.pth"

    loaded = load_lit(save(config), weights)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.patch_embeddings(images)[0], model.patch_embeddings(images)[0])
    torch.testing.assert_close(loaded.patch_text_embeddings(["star"]), model.patch_text_embeddings(["star"]))
    with pytest.raises(CheckpointError, match="in another file .elsewhere.*pass that file as `weights`"):
        load_lit(tmp_path / "run.pth")
    torch.save(PETower(SPATIAL).state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="trained on a backbone with other weights"):
        load_lit(tmp_path / "run.pth", tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="the text tower is too large"):
        load_lit(save(config.replace("'layers': 2, 'output_dim': 16", "'layers': 9999, 'output_dim': 16")), weights)
    with pytest.raises(CheckpointError, match="is not a checkpoint of a training run of pe_dense.LiT"):
        load_lit(save("model = dict(type='pe_dense.ContrastiveCLIP')"), weights)


def test_words_of_a_run_on_frozen_tokens(tmp_path):
    """The checkpoint of a run, which lacks the frozen backbone, in the config of open-vocabulary segmentation."""
    config = load_config("shapes_lit_pe_tiny")
    torch.manual_seed(0)
    lit = MODELS.build(config.model)
    lit.init_weights()
    torch.save(dict(state_dict=lit.state_dict(), meta={}), tmp_path / "run.pth")
    segmenter = MODELS.build(load_config("shapes_words_lit_pe_tiny").model)
    load_model_state(segmenter, read_checkpoint(tmp_path / "run.pth"), "run.pth")
    lit.eval()
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        patches, grid = lit.patch_embeddings(images)
        texts = lit.patch_text_embeddings(segmenter.queries, segmenter.templates)
        expected = (patches @ texts.T).transpose(1, 2).unflatten(2, grid)
        expected = F.interpolate(expected, (32, 48), mode="bilinear")
        torch.testing.assert_close(segmenter.similarities(images), expected, atol=1e-5, rtol=0)
