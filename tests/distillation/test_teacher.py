"""Frozen teachers and cached features."""

import pytest
import torch
from helpers.tiny_alignment import CORE, photos, write_core

from pe_dense.backbones import load_tower
from pe_dense.distillation.feature_cache import FeatureCache
from pe_dense.distillation.teachers import TowerTeacher


@pytest.fixture
def core(tmp_path):
    return write_core(tmp_path)


def make(core, **changes):
    tower = dict(type="pe_dense.PETower", arch=dict(CORE), with_head=False)
    return TowerTeacher(**{**dict(tower=tower, image_size=64, checkpoint=core, layer=2), **changes})


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_tokens_are_the_towers_at_its_layer(core, layer):
    images = photos()
    teacher = make(core, layer=layer)
    expected = load_tower(CORE, core).forward_features(images * 2 - 1, layer_idx=layer)[:, 1:]  # no class token
    tokens = teacher(images, (4, 4))
    assert torch.allclose(tokens, expected, atol=1e-5)
    assert not tokens.requires_grad and not tokens.is_inference()
    assert len(teacher.tower.transformer.resblocks) == layer % 4 + 1  # later blocks are gone
    assert not any(p.requires_grad for p in teacher.parameters())


def test_every_source_resizes_images_for_itself(core):
    images = photos(side=96)
    small = torch.nn.functional.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
    teacher = make(core)
    assert torch.equal(teacher(images, (4, 4)), teacher(small, (4, 4)))


def test_bfloat16_halves_the_weights(core):
    full, half = make(core), make(core, dtype="bfloat16")
    assert all(p.dtype == torch.bfloat16 for p in half.parameters())
    with torch.autocast("cpu", torch.bfloat16):  # of the training around; teachers keep their own precision
        tokens = full(photos(), (4, 4))
        others = half(photos(), (4, 4))
    assert torch.equal(tokens, full(photos(), (4, 4)))
    difference = (tokens - others.float()).abs().max() / tokens.std()
    assert 1e-3 < difference < 0.2


def test_bad_settings(core):
    with pytest.raises(ValueError, match="layer 4 is out of range for the 4"):
        make(core, layer=4)
    with pytest.raises(ValueError, match="60 x 60 px are not a multiple of the patch size 16"):
        make(core, image_size=60)
    with pytest.raises(ValueError, match=r"4 x 4 tokens at 64 px.*8 x 8.*same token grid"):
        make(core)(photos(), (8, 8))
    with pytest.raises(ValueError, match="must be float32 or bfloat16, got 'float16'"):
        make(core, dtype="float16")


def test_features_are_computed_once(core, tmp_path):
    teacher = make(core, cache=str(tmp_path / "cache"))
    images = photos(3)
    expected = make(core)(images, (4, 4))
    assert torch.equal(teacher(images, (4, 4)), expected)
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == 3

    again = make(core, cache=str(tmp_path / "cache"))
    again.tokens = None  # must not be asked
    assert torch.equal(again(images, (4, 4)), expected)
    assert torch.equal(again(images[[2, 0]], (4, 4)), expected[[2, 0]])

    files[0].write_bytes(files[0].read_bytes()[:100])
    assert torch.allclose(teacher(images, (4, 4)), expected, atol=1e-6)  # computed for one image now
    assert len(files[0].read_bytes()) > 100


@pytest.mark.parametrize("change", ["pixel", "weights", "layer", "dtype", "grid"])
def test_whatever_changes_tokens_is_computed_again(core, tmp_path, change):
    folder = str(tmp_path / "cache")
    images = photos(1)
    make(core, cache=folder)(images, (4, 4))
    if change == "pixel":
        images[0, 1, 5, 5] += 1 / 255
    if change == "weights":
        state = torch.load(core)
        state["transformer.resblocks.1.mlp.c_fc.bias"][3] += 1e-3
        torch.save(state, core)
    settings = {"layer": dict(layer=1), "dtype": dict(dtype="bfloat16"), "grid": dict(image_size=96)}.get(change, {})
    grid = (6, 6) if change == "grid" else (4, 4)
    teacher = make(core, cache=folder, **settings)
    assert torch.equal(teacher(images, grid), make(core, **settings)(images, grid))
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2


def test_an_image_twice_in_a_batch(tmp_path):
    cache = FeatureCache(tmp_path)
    images = photos(1).expand(2, -1, -1, -1)
    assert cache.get(images, "mean", lambda some: some.mean((2, 3))).shape == (2, 3)
    assert len(list(tmp_path.rglob("*.*"))) == 1
