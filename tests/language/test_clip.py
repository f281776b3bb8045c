"""CLIP models: files, errors, videos, the published example."""

import hashlib
import html
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from PIL import Image
from safetensors.torch import save_file

from pe_dense.backbones import PE_CONFIGS, PEConfig
from pe_dense.language import (
    CLIP,
    TEXT_CONFIGS,
    TextConfig,
    get_image_transform,
    get_text_tokenizer,
    load_clip,
    save_clip,
)
from pe_dense.language.clip import _find_configs
from pe_dense.language.open_clip import from_open_clip, to_open_clip
from pe_dense.language.preprocessing import video_frame_indices
from pe_dense.utils import CheckpointError, checkpoint


@pytest.fixture(scope="module")
def model():
    return tiny_clip()


def test_published_sizes():
    """Parameters of both towers in billions, without the token embedding, as in the published table."""
    counts = {}
    for name in CLIP.available_configs():
        with torch.device("meta"):
            model = CLIP(name)
        image = sum(parameter.numel() for parameter in model.visual.parameters())
        text = sum(parameter.numel() for parameter in model.parameters()) - image - model.token_embedding.weight.numel()
        counts[name] = image / 1e9, text / 1e9
        assert _find_configs({}, model.state_dict(), "file") == (name, None, {})
    assert list(counts) == [
        "PE-Mini-Core",
        "PE-Core-G14-448",
        "PE-Core-L14-336",
        "PE-Core-B16-224",
        "PE-Core-S16-384",
        "PE-Core-T16-384",
    ]
    assert counts["PE-Core-B16-224"] == pytest.approx((0.09, 0.31), abs=0.007)
    assert counts["PE-Core-L14-336"] == pytest.approx((0.32, 0.31), abs=0.007)
    assert counts["PE-Core-G14-448"] == pytest.approx((1.88, 0.47), abs=0.006)
    assert counts["PE-Core-T16-384"][1] == counts["PE-Core-S16-384"][1] == pytest.approx(0.038, abs=0.001)


@pytest.mark.parametrize("layout", ["pe", "open_clip"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrap", [False, True])
def test_every_layout_loads(tmp_path, model, layout, suffix, wrap):
    path = save_clip(model, tmp_path / f"clip{suffix}", layout=layout)
    if wrap:
        state = model.state_dict() if layout == "pe" else to_open_clip(model.state_dict())
        state = {f"module.{key}": value for key, value in state.items()}
        save_file(state, path) if suffix == ".safetensors" else torch.save(dict(weights=state), path)
    loaded = load_clip(path, VISION, TEXT)
    assert not loaded.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    with pytest.raises(FileExistsError):
        save_clip(model, path, layout=layout)


def test_published_example(tmp_path, monkeypatch, model):
    """Usage 1 of the published README, with other import lines, on a small model and on the CPU."""
    name = "PE-Core-L14-336"
    monkeypatch.setitem(PE_CONFIGS, name, PEConfig(**VISION))
    monkeypatch.setitem(TEXT_CONFIGS, name, TextConfig(**TEXT))
    state = model.state_dict()
    torch.save(state, tmp_path / "published.pt")
    files = {f"hf://facebook/{name}": str(tmp_path / "published.pt")}
    monkeypatch.setattr(checkpoint, "fetch_from_hub", files.__getitem__)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    (tmp_path / "docs/assets").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(
        tmp_path / "docs/assets/cat.png"
    )
    monkeypatch.chdir(tmp_path)

    import torch as torch_  # noqa: F401
    from PIL import Image as Image_  # noqa: F401

    import pe_dense.language as pe
    import pe_dense.language as transforms

    assert "PE-Core-L14-336" in pe.CLIP.available_configs()
    model = pe.CLIP.from_config("PE-Core-L14-336", pretrained=True)  # Downloads from HF
    model = model.cuda()

    preprocess = transforms.get_image_transform(model.image_size)
    tokenizer = transforms.get_text_tokenizer(model.context_length)

    image = preprocess(Image.open("docs/assets/cat.png")).unsqueeze(0).cuda()
    text = tokenizer(["a diagram", "a dog", "a cat"]).cuda()

    with torch.no_grad(), torch.autocast("cuda", enabled=torch.cuda.is_available()):
        image_features, text_features, logit_scale = model(image, text)
        text_probs = (logit_scale * image_features @ text_features.T).softmax(dim=-1)

    assert text_probs.shape == (1, 3) and text_probs.sum().item() == pytest.approx(1)
    assert model.pretrain_image_size == model.image_size == 32
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_squash():
    image = Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(4, 64).repeat(2, 0)).convert("RGB")
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(get_image_transform(16)(image), expected, atol=1e-6)
    gray = get_image_transform(16)(image.convert("L"))
    np.testing.assert_allclose(gray, expected, atol=1e-6)


@torch.no_grad()
def test_video_is_the_mean_of_its_frames(model):
    video = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for normalize in (False, True):
        frames = [model.encode_image(video[:, i], normalize) for i in range(3)]
        torch.testing.assert_close(model.encode_video(video, normalize), sum(frames) / 3)
    assert video_frame_indices(100) == [0, 14, 28, 42, 56, 70, 84, 99]
    assert video_frame_indices(3) == [0, 0, 0, 0, 1, 1, 1, 2]
    assert video_frame_indices(7, 1) == [3]


def test_resampled_positions(tmp_path, model):
    """Another native size of the image tower resamples its positions."""
    path = save_clip(model, tmp_path / "clip.pt")
    larger = load_clip(path, replace(PEConfig(**VISION), image_size=48), TEXT)
    assert larger.image_size == 48 and larger.visual.positional_embedding.shape == (37, 32)


def broken(change, tmp_path, model):
    state = dict(model.state_dict())
    change(state)
    torch.save(state, tmp_path / "broken.pt")
    return tmp_path / "broken.pt"


def keep_visual(state):
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    state.clear()
    state.update(visual)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (keep_visual, "contains only an image tower.*models with both towers: PE-Core-T16-384, "),
        (lambda state: state.pop("visual.conv1.weight"), "contains no image tower"),
        (lambda state: state.pop("token_embedding.weight"), "contains no text tower.*models with both towers"),
        (lambda state: state.pop("logit_scale"), "does not fit the text tower.*missing in the file: logit_scale"),
        (lambda state: state.update(extra=torch.ones(1)), "unknown to the model: extra"),
        (lambda state: state.update(ln_final=torch.ones(1)), "unknown to the model: ln_final"),
        (lambda state: state.update(text_projection=torch.ones(32, 8)), r"text_projection \(32, 8\) for \(32, 16\)"),
        (lambda state: state.update({"visual.proj": torch.full((32, 16), torch.nan)}), "NaN"),
    ],
)
def test_files_that_do_not_fit(tmp_path, model, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_clip(broken(change, tmp_path, model), VISION, TEXT)


def test_text_tower_of_another_size(tmp_path, model):
    path = save_clip(model, tmp_path / "clip.pt")
    with pytest.raises(
        CheckpointError, match=r"clip.pt does not fit the text tower.*positional_embedding \(16, 32\) for"
    ):
        load_clip(path, VISION, dict(TEXT, context_length=32))
    with pytest.raises(ValueError, match="image embeddings have 16 channels and text embeddings 24"):
        load_clip(path, VISION, dict(TEXT, output_dim=24))
    path = tmp_path / "other.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="shapes of no published model: pass vision="):
        load_clip(path)


@pytest.mark.parametrize(
    "recorded",
    [
        3,
        dict(vision=VISION),
        dict(vision=dict(VISION, width=1 << 40), text=TEXT),
        dict(vision=dict(VISION, global_blocks=["0"]), text=TEXT),
        dict(vision=dict(VISION, global_blocks=[0] * 1000), text=TEXT),
    ],
)
def test_recorded_config_is_checked(tmp_path, model, recorded):
    torch.save(dict(state_dict=model.state_dict(), meta=dict(clip=recorded)), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="meta.clip does not describe two towers"):
        load_clip(tmp_path / "clip.pt")


def test_open_clip_bias_that_is_lost(tmp_path, model):
    state = to_open_clip(model.state_dict())
    state["visual.trunk.head.bias"] = torch.ones(16)
    with pytest.raises(CheckpointError, match="head.bias is not zero"):
        from_open_clip(state, "file")
    state["visual.trunk.head.bias"].zero_()
    state["visual.trunk.blocks.0.other"] = torch.ones(1)
    with pytest.raises(CheckpointError, match=r"file: unexpected keys visual.trunk.blocks.0.other"):
        from_open_clip(state, "file")


@pytest.mark.parametrize("name", ["PE-Spatial-B16-512", "PE-Lang-L14-448"])
def test_models_without_a_text_tower(name):
    for build in (load_clip, CLIP, CLIP.from_config):
        with pytest.raises(ValueError, match=f"{name} has no text tower; models with a text tower: PE-Core-T16-384"):
            build(name)


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean PE-Core-B16-224?"):
        load_clip("PE-Core-B16-225")
    with pytest.raises(ValueError, match="no pooled embedding"):
        CLIP(dict(VISION, pool_type="none"), TEXT)
    with pytest.raises(ValueError, match="unknown text tower fields depth"):
        CLIP(VISION, dict(TEXT, depth=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.encode_text(["a"]), r"got a list: tokenize with get_text_tokenizer\(16\)"),
        (lambda model: model.encode_text(torch.ones(1, 17, dtype=torch.long)), "longer than the context length 16"),
        (lambda model: model.encode_text(torch.ones(3)), "token ids"),
        (lambda model: model.encode_image(torch.ones(3, 32, 32)), r"\(N, 3, H, W\)"),
        (
            lambda model: model.encode_image(torch.ones(1, 3, 30, 32)),
            "30 x 32 px are not a multiple of the patch size 8",
        ),
        (lambda model: model.encode_video(torch.ones(1, 0, 3, 32, 32)), "at least one frame"),
        (lambda model: get_image_transform(224.5), "image_size must be a positive integer, got 224.5"),
        (lambda model: get_text_tokenizer(1), "at least 2"),
        (lambda model: get_text_tokenizer(16)([]), "no text to tokenize"),
        (lambda model: get_text_tokenizer(16)(["a", 3]), "a text is a str, got 3"),
    ],
)
def test_bad_input(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_truncated_text_is_named_once(monkeypatch):
    lines = []
    monkeypatch.setattr("pe_dense.language.preprocessing.print_log", lambda line, **_: lines.append(line))
    tokens = get_text_tokenizer(8)(["a dog", "one two three four five six seven", "b " * 50])
    assert tokens[1].tolist()[0] == 49406 and tokens[1, -1] == tokens[2, -1] == 49407
    assert tokens[0].tolist() == [49406, 320, 1929, 49407, 0, 0, 0, 0]
    (line,) = lines
    assert "'one two three four five six seven' and 1 more has more than the 8 tokens" in line


def generated_texts(count):
    """Strings of all kinds: several scripts, emoji, HTML entities, broken encodings, white space, long ones."""
    draw = random.Random(0)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz",
        "ABCXYZ àéîõüßøñ çÇÅ",
        "0123456789 .,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`",
        "猫が好き東京 한국어 русский ελληνικά עברית العربية हिन्दी ไทย",
        "🐈🏽👩‍👩‍👧‍👦🇩🇪❤️…—“”‘’•™©½²",
    ]
    pieces = [
        "&amp;",
        "&lt;b&gt;",
        "&amp;amp;",
        "it's",
        "we'll",
        "don't",
        "\t",
        "\n",
        "  ",
        "Ã©",
        "â€™",
        "<end_of_text>",
    ]
    texts = []
    for _ in range(count):
        words = []
        for _ in range(draw.choice([1, 2, 4, 8, 40])):
            alphabet = draw.choice(alphabets)
            word = "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 9)))
            words.append(draw.choice([word, word, html.escape(word), draw.choice(pieces)]))
        texts.append(draw.choice(["", " "]).join(words))
    return texts


@pytest.mark.parametrize("length", [32, 72])
def test_ids_are_those_of_open_clip(length):
    """Of 5,000 strings, by the hash of the ids that open_clip 3.3.0's tokenizer (``clean='lower'``) gives."""
    ids = get_text_tokenizer(length)(generated_texts(5000)).numpy().astype("<i4")
    assert hashlib.sha256(ids.tobytes()).hexdigest() == DIGESTS[length]


DIGESTS = {
    32: "e0dfffb1de287d68b3108fd92a4ad47dfcc954b84ba5cc662ace9fafe0108198",
    72: "7945437078d325d634a5a0ba90b470f76eae2bbf89a49430a6af95723211e002",
}
