"""Both towers of PE Core against recordings of the published implementation and of open_clip."""

import json
import re

import pytest
import torch
from helpers.recordings import OWN_FOLDER, Recording, by_recording
from helpers.tiny_clip import recorded_state

from pe_dense.language import TextTower, get_text_tokenizer, load_clip, save_clip
from pe_dense.language.clip import clip_state
from pe_dense.language.open_clip import from_open_clip, to_open_clip

TOLERANCE = dict(atol=2e-5, rtol=0)
NORMALIZED = dict(atol=5e-6, rtol=0)


@pytest.fixture
def load(tmp_path):
    def load(golden):
        torch.save(recorded_state(golden), tmp_path / "clip.pt")
        return load_clip(tmp_path / "clip.pt", golden.config["vision"], golden.config["text"])

    return load


def tokens_of(golden):
    return get_text_tokenizer(golden.config["text"]["context_length"])(golden.config["texts"])


@by_recording("clip_core*.npz")
@torch.no_grad()
def test_golden_clip_core(path, load):
    golden = Recording(path)
    model, tokens = load(golden), tokens_of(golden)
    assert torch.equal(tokens, golden["tokens"])
    image_features, text_features, logit_scale = model(golden["image"], tokens)
    torch.testing.assert_close(image_features, golden["image_features"], **NORMALIZED)
    torch.testing.assert_close(text_features, golden["text_features"], **NORMALIZED)
    torch.testing.assert_close(logit_scale, golden["logit_scale"], **TOLERANCE)
    probs = (logit_scale * image_features @ text_features.T).softmax(dim=-1)
    torch.testing.assert_close(probs, golden["probs"], **TOLERANCE)


@by_recording("clip_core*.npz")
def test_golden_clip_is_written_back_unchanged(path, load, tmp_path):
    golden = Recording(path)
    save_clip(load(golden), tmp_path / "back.pt")
    state, expected = clip_state(torch.load(tmp_path / "back.pt", weights_only=True)), recorded_state(golden)
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    again = load_clip(tmp_path / "back.pt")  # the file contains the configs
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())


@by_recording("text_tower_*.npz")
@torch.no_grad()
def test_golden_text_tower(path):
    golden = Recording(path)
    tower = TextTower(golden.config["text"]).eval()
    tower.load_state_dict(recorded_state(golden))
    tokens = tokens_of(golden)
    assert torch.equal(tokens, golden["tokens"])
    x = tower.token_embedding(tokens) + tower.positional_embedding[: tokens.shape[1]]
    torch.testing.assert_close(tower.transformer.resblocks[0](x), golden["block0"], **TOLERANCE)
    torch.testing.assert_close(tower.encode_text(tokens), golden["features"], **TOLERANCE)
    torch.testing.assert_close(tower.encode_text(tokens, normalize=True), golden["normalised"], **NORMALIZED)


@by_recording("open_clip_*.npz")
@torch.no_grad()
def test_golden_open_clip(path, load, tmp_path):
    golden = Recording(path)
    model, tokens = load(golden), tokens_of(golden)
    assert torch.equal(tokens, golden["tokens"])
    save_clip(model, tmp_path / "open_clip.safetensors", layout="open_clip")
    for other in (model, load_clip(tmp_path / "open_clip.safetensors", golden.config["vision"], golden.config["text"])):
        torch.testing.assert_close(other.encode_image(golden["image"]), golden["image_features_raw"], **TOLERANCE)
        torch.testing.assert_close(other.encode_text(tokens), golden["text_features_raw"], **TOLERANCE)
        images, texts, scale = other(golden["image"], tokens)
        torch.testing.assert_close(images, golden["image_features"], **NORMALIZED)
        torch.testing.assert_close(texts, golden["text_features"], **NORMALIZED)
        torch.testing.assert_close(images, golden["pe_image_features"], **NORMALIZED)
        torch.testing.assert_close(texts, golden["pe_text_features"], **NORMALIZED)
        torch.testing.assert_close(scale, golden["logit_scale"], **TOLERANCE)
        probs = (scale * images @ texts.T).softmax(dim=-1)
        torch.testing.assert_close(probs, golden["probs"], **NORMALIZED)


@by_recording("open_clip_*.npz")
def test_golden_open_clip_keys(path):
    golden = Recording(path)
    state = recorded_state(golden)
    converted = to_open_clip(state)
    patterns = json.loads((OWN_FOLDER / "open_clip_keys.json").read_text())
    expected = {"visual.trunk.head.bias"}
    for key, value in state.items():
        (pattern,) = [pattern for pattern in patterns if re.fullmatch(pattern["pe"].strip("^$"), key)]
        names = pattern["open_clip"] if isinstance(pattern["open_clip"], list) else [pattern["open_clip"]]
        names = [re.sub(pattern["pe"], name, key) for name in names]
        expected.update(names)
        joined = converted[names[0]] if len(names) == 1 else torch.cat([converted[name] for name in names])
        assert torch.equal(
            joined.t().flatten() if "transpose" in pattern["operation"] else joined.flatten(), value.flatten()
        )
    assert set(converted) == expected
    back = from_open_clip(converted)
    assert set(back) == set(state) and all(torch.equal(back[key], state[key]) for key in state)
