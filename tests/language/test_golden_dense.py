"""Training-free dense embeddings and their post-processing against recordings of the published methods."""

import torch
import torch.nn.functional as F
from helpers.recordings import Recording, by_recording
from helpers.tiny_clip import recorded_state

from pe_dense.backbones.text_space import embed_tokens, last_block_tokens
from pe_dense.language import CLIP, get_text_tokenizer
from pe_dense.language.dense import (
    attention_weights,
    class_scores,
    gaussian_bias,
    label_map,
    mix_by_proxy,
    pad_symmetric,
    proxy_weights,
    refine,
    suppress_small_classes,
    upsampled_bands,
)
from pe_dense.probing.sliding_window import SlidingWindows

TOLERANCE = dict(atol=2e-5, rtol=0)
COSINES = dict(atol=5e-6, rtol=0)


@by_recording("clip_dense_*.npz")
@torch.no_grad()
def test_golden_dense(path):
    golden = Recording(path)
    model = CLIP(golden.config["vision"], golden.config["text"]).eval()
    model.load_state_dict(recorded_state(golden))
    tower = model.visual
    ids = get_text_tokenizer(model.context_length)(golden.config["texts"])
    assert torch.equal(ids, golden["tokens_of_texts"])
    texts = model.encode_text(ids, normalize=True)
    torch.testing.assert_close(texts, golden["text_features"], **COSINES)
    for name in sorted({name.split("/")[0] for name in golden.names if name.startswith("in")}):
        recorded = golden.subset(f"{name}/")
        last = tower.forward_features(recorded["image"])
        torch.testing.assert_close(last, recorded["last"], **TOLERANCE)
        torch.testing.assert_close(model.encode_image(recorded["image"]), recorded["pooled"], **TOLERANCE)
        for rotated in (False, True):  # with its own weights the last block is unchanged
            own = last_block_tokens(
                tower,
                recorded["image"],
                lambda q, k, v: attention_weights(q, k, v, "qk"),
                rotated=rotated,
                residual=True,
            )
            assert torch.allclose(own, last, atol=1e-5) == rotated
        cosine = model.encode_image(recorded["image"], True) @ texts.T
        torch.testing.assert_close(cosine, recorded["cosine_pooled"], **COSINES)
        grid = tower.grid_of(recorded["image"])
        for kind in ("naive", "tokens"):
            embeddings = embed_tokens(tower, last[:, tower.num_prefix_tokens :], naive=kind == "naive")
            torch.testing.assert_close(embeddings, recorded[kind], **TOLERANCE)
            cosines = (F.normalize(embeddings, dim=-1) @ texts.T).transpose(1, 2).unflatten(2, grid)
            torch.testing.assert_close(cosines, recorded[f"cosine_{kind}"], **COSINES)


def split_heads(tokens, state, heads):
    qkv = F.linear(tokens, state["in_proj_weight"], state["in_proj_bias"])
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def attention_state(golden):
    """The attention's parameters, whatever stands before their names."""
    state = {}
    for key, value in golden.state.items():
        for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
            if key.endswith(name):
                state[name] = value
    return state


@by_recording("ovss_attention*.npz")
def test_golden_attention(path):
    golden = Recording(path)
    state, config = attention_state(golden), golden.config
    q, k, v = split_heads(golden["tokens"], state, config["heads"])
    bias = gaussian_bias(config["grid"], config["gaussian_std"], num_prefix_tokens=1)
    torch.testing.assert_close(bias, golden["naclip_code/addition"], **TOLERANCE)
    methods = {
        "clearclip_code/vanilla": ("qk", None),
        "clearclip_code/MaskCLIP": ("identity", None),
        "clearclip_code/SCLIP": ("qq+kk", None),
        "clearclip_code/ClearCLIP": ("qq", None),
        "naclip_code/naclip": ("kk", bias),
        "naclip_code/nonly": ("none", bias),
        "naclip_code/kk": ("kk", None),
        "naclip_code/csa": ("qq+kk", None),
        "naclip_code/vanilla": ("qk", None),
    }
    recorded = {name for name in golden.names if "_code/" in name} - {"naclip_code/addition"}
    assert recorded <= set(methods)
    for name in recorded:
        similarity, added = methods[name]
        out = (attention_weights(q, k, v, similarity, added) @ v).transpose(1, 2).flatten(2)
        out = F.linear(out, state["out_proj.weight"], state["out_proj.bias"])
        torch.testing.assert_close(out, golden[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@by_recording("proxyclip*.npz")
def test_golden_proxy(path):
    golden = Recording(path)
    state, config = attention_state(golden), golden.config
    grid = tuple(config["grid"])
    weight, bias, proj = (golden.state[name] for name in ("ln_post.weight", "ln_post.bias", "proj"))
    width = golden["tokens"].shape[-1]
    patches = golden["tokens"][:, 1:]
    values = F.linear(patches, state["in_proj_weight"][2 * width :], state["in_proj_bias"][2 * width :])
    for i, proxy_grid in enumerate(map(tuple, config["proxy_grids"])):
        features = golden[f"proxy{i}/features"]
        assert features.shape[-2:] == proxy_grid
        for name, beta, gamma in config["cases"]:
            weights = proxy_weights(features, beta, gamma, over_batch=True)
            mixed = mix_by_proxy(values, grid, weights, proxy_grid)
            out = F.linear(mixed, state["out_proj.weight"], state["out_proj.bias"])
            torch.testing.assert_close(out, golden[f"proxy{i}/{name}/attention"], **TOLERANCE)
            if f"proxy{i}/{name}/embedding" in golden:
                embedding = F.layer_norm(out, (width,), weight, bias) @ proj
                torch.testing.assert_close(embedding, golden[f"proxy{i}/{name}/embedding"], **TOLERANCE)


@by_recording("ovss_postprocess*.npz")
def test_golden_postprocess(path):
    golden = Recording(path)
    config, image = golden.config, golden["image"]

    given = []  # sizes of the crops that the model is run on

    def stand_in(crop):
        given.append(crop.shape[-2:])
        maps = F.conv2d(crop, golden["conv"], stride=16)
        return F.interpolate(maps, crop.shape[-2:], mode="bilinear")

    def padded(crop):
        whole, (rows, columns) = pad_symmetric(crop, config["pad_multiple"])
        return stand_in(whole)[..., rows, columns]

    def slide(crop, forward):
        given.clear()
        windows = SlidingWindows(*config["size"], (crop, crop), (config["stride"], config["stride"]))
        logits = windows.merge(forward(part) for part in windows.cut(image))
        return F.interpolate(logits, tuple(config["ori_shape"]), mode="bilinear")

    for name, crop, forward in (("slide", config["crop"], stand_in), ("padded", config["pad_crop"], padded)):
        logits = slide(crop, forward)
        assert torch.equal(torch.tensor(given), golden[f"{name}/windows"])
        torch.testing.assert_close(logits, golden[f"{name}/logits"], **COSINES)
        scores = class_scores(logits, golden["query_idx"], config["logit_scale"])
        assert torch.equal(label_map(scores, config["prob_thd"]), golden[f"{name}/labels"].long())
        if name == "slide":
            torch.testing.assert_close(scores[0], golden["slide/probabilities"], atol=5e-5, rtol=0)
            large = suppress_small_classes(scores, config["area_thd"])
            torch.testing.assert_close(large[0], golden["area/probabilities"], atol=5e-5, rtol=0)
            assert torch.equal(label_map(large, config["prob_thd"]), golden["area/labels"].long())
            resized = F.interpolate(image, tuple(config["ori_shape"]), mode="bilinear")
            refined = refine(resized, logits, config["pamr_steps"], config["pamr_dilations"])
            torch.testing.assert_close(refined, golden["pamr/logits"], **COSINES)


def test_bands_of_upsampled_maps():
    """In bands of four rows, the maps are those of one interpolation."""
    maps = torch.randn(1, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    (whole,) = upsampled_bands(maps, (30, 20))
    bands = list(upsampled_bands(maps, (30, 20), limit=3 * 4 * 20))
    assert [band.shape[2] for band in bands] == [4] * 7 + [2]
    torch.testing.assert_close(torch.cat(bands, 2), whole, atol=1e-6, rtol=0)
