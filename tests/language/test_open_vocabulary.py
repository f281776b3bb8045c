"""Open-vocabulary segmentation: modes, windows, independence of the batch, thresholds, bad input, the tool."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from helpers.tiny_towers import photo_file, tiny_tower
from helpers.tool_runs import call_tool
from mmseg.structures import SegDataSample
from PIL import Image

from pe_dense.engine.runner import load_model_state
from pe_dense.language import save_clip
from pe_dense.language.dense import label_map, proxy_weights, refine, suppress_small_classes, word_maps
from pe_dense.language.open_vocabulary import OpenVocabularySegmenter
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


def segmenter(clip, **options):
    words = options.pop("words", "a cat, dog; puppy, grass")
    return OpenVocabularySegmenter(clip, words, templates=options.pop("templates", "photo"), **options)


def images(count=2, size=(40, 56)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


MODES = [
    dict(mode="pooled"),
    dict(mode="naive"),
    dict(mode="proxy", proxy=tiny_tower()),
    dict(mode="sclip"),
    dict(mode="clearclip", refine_steps=2, refine_dilations=(1, 40)),
    dict(mode="naclip", rotated=True),
    dict(mode="pooled", test_cfg=dict(mode="slide", crop_size=(24, 24), stride=(16, 16))),
]


@pytest.mark.parametrize("options", MODES, ids=lambda options: "-".join(map(str, options.values()))[:30])
def test_images_do_not_depend_on_the_batch(clip, options):
    """Neither on other images nor on padding, in any mode and at any size."""
    model = segmenter(clip, **options)
    first, second = images(size=(40, 56))
    sample = SegDataSample(metainfo=dict(img_shape=(33, 50), ori_shape=(66, 100)))
    (alone,) = model.predict(first[None, :, :33, :50], [sample.clone()])
    batch = model.predict(torch.stack([second, first]), [SegDataSample(), sample.clone()])
    assert torch.equal(alone.seg_logits.data, batch[1].seg_logits.data)
    assert alone.pred_sem_seg.data.shape == (1, 66, 100) and batch[0].pred_sem_seg.data.shape == (1, 40, 56)
    assert batch[0].seg_logits.data.shape == (3, 40, 56)  # of two synonyms the better one
    assert batch[0].seg_logits.data.std() > 0


def test_pooled_patch_is_an_image_of_one_token(clip):
    """A single patch without a class token is pooled as the published model pools it."""
    clip = tiny_clip(use_cls_token=False)
    model = segmenter(clip)
    image = images(1, (8, 8))
    embeddings, grid = model.patch_embeddings(image)
    torch.testing.assert_close(embeddings[:, 0], clip.encode_image(image, normalize=True))
    assert grid == (1, 1)


def test_identity_is_the_mode_without_attention(clip):
    """A proxy whose patches are all unlike each other leaves each patch its own value: the mode 'pooled'."""
    model = segmenter(clip, mode="proxy", proxy=tiny_tower(), gamma=1e4)
    pooled = segmenter(clip).patch_embeddings(images()[:, :, :, :40])[0]
    model._proxy_features = lambda images, grid: torch.eye(25).expand(len(images), -1, -1).unflatten(2, grid)
    torch.testing.assert_close(model.patch_embeddings(images()[:, :, :, :40])[0], pooled)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("sclip", dict(similarity="qq+kk", residual=True)),
        ("clearclip", dict(similarity="qq")),
        ("naclip", dict(similarity="kk", gaussian_std=5.0)),
    ],
)
def test_published_settings(clip, mode, settings):
    """Table of the methods: similarity, Gaussian, and whether residual and MLP of the last block are kept."""
    named = segmenter(clip, mode=mode).patch_embeddings(images()[:, :, :, :40])[0]
    spelled = segmenter(clip, mode="self", **settings).patch_embeddings(images()[:, :, :, :40])[0]
    assert torch.equal(named, spelled)
    assert not torch.allclose(named, segmenter(clip, mode="self").patch_embeddings(images()[:, :, :, :40])[0])


def test_rotation(clip):
    """Similarities of queries and keys before the rotation by positions depend on content only."""
    uniform = torch.full((1, 3, 40, 40), 0.3)
    clip = tiny_clip(use_abs_posemb=False)
    before, after = (
        segmenter(clip, mode="clearclip", rotated=rotated).patch_embeddings(uniform)[0] for rotated in (False, True)
    )
    torch.testing.assert_close(before, before[:, :1].expand_as(before), atol=1e-4, rtol=0)
    assert (after - after[:, :1]).abs().max() > 1e-3


def test_uniform_image(clip):
    """All patches of a proxy are alike, so that their similarity is below the mean times beta."""
    features = torch.ones(1, 4, 3, 3)
    torch.testing.assert_close(proxy_weights(features), torch.full((1, 9, 9), 1 / 9))
    model = segmenter(clip, mode="proxy", proxy=tiny_tower())
    (sample,) = model.predict(torch.zeros(1, 3, 40, 40))
    assert sample.seg_logits.data.isfinite().all()


class Tokens(torch.nn.Module):
    """As a model with a trained head on tokens: patches of 8 px are embedded by their mean color."""

    patch_size, context_length = 8, 16

    def __init__(self):
        super().__init__()
        self.color = torch.nn.Linear(3, 16)
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))

    def encode_text(self, ids, normalize=False):
        return F.normalize(ids[:, :16].float(), dim=-1)

    def patch_embeddings(self, images):
        maps = F.avg_pool2d(images, 8)
        return self.color(maps.flatten(2).transpose(1, 2)), tuple(maps.shape[-2:])


def test_tokens():
    """A model with a trained head brings its own embeddings, and loads its own checkpoint."""
    model = segmenter(Tokens(), mode="tokens")
    state = {key: value + 1 for key, value in model.clip.state_dict().items()}
    load_model_state(model, dict(state_dict=state), "run.pth")
    torch.testing.assert_close(model.clip.color.bias, state["color.bias"])
    embeddings, grid = model.patch_embeddings(images())
    torch.testing.assert_close(embeddings, F.normalize(model.clip.patch_embeddings(images())[0], dim=-1))
    assert grid == (5, 7) and model.predict(images())[0].pred_sem_seg.data.shape == (1, 40, 56)
    with pytest.raises(ValueError, match="mode 'pooled' needs a PE Core model, Tokens supports mode 'tokens'"):
        segmenter(Tokens())


def test_refinement_follows_edges():
    """PAMR moves the border of two labels to the border of two colors."""
    image = torch.zeros(1, 3, 24, 24)
    image[..., 10:] = 1
    image += 0.01 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(1, 2, 24, 24)
    maps[:, 0, :, :14], maps[:, 1, :, 14:] = 1, 1
    assert refine(image, maps, steps=100, dilations=(1, 2)).argmax(1)[0, 12].tolist() == [0] * 10 + [1] * 14


def test_words_are_embedded_again_after_loading(clip, tmp_path):
    model = segmenter(tiny_clip())
    before = model.text_embeddings
    other = {key: value + 0.1 for key, value in clip.state_dict().items()}
    load_model_state(model, dict(state_dict=other), "other.pt")
    assert (model.text_embeddings - before).abs().max() > 1e-4
    clip = tiny_clip()
    clip.load_state_dict(other)
    torch.testing.assert_close(model.text_embeddings, segmenter(clip).text_embeddings)


def test_mean_of_the_batch_is_an_option():
    features = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    alone = proxy_weights(features[:1])
    assert torch.equal(proxy_weights(features)[:1], alone)
    assert not torch.allclose(proxy_weights(features, over_batch=True)[:1], alone)


def test_thresholds():
    scores = torch.tensor([[0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6]]).T[None, :, None]
    assert label_map(scores).flatten().tolist() == [1, 1, 1, 2]
    assert label_map(scores, 0.45).flatten().tolist() == [1, 0, 1, 2]
    assert label_map(suppress_small_classes(scores, 0.25)).flatten().tolist() == [1, 1, 1, 1]
    assert label_map(suppress_small_classes(scores, 0.24)).flatten().tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(words=""), "the list of words is empty"),
        (dict(words=[]), "the list of words is empty"),
        (
            dict(words="cityscape.txt"),
            "word file cityscape.txt does not exist; those of the package: ade20k.txt, citysc",
        ),
        (dict(mode="tokens"), "mode 'tokens' needs a model with a trained head on tokens, CLIP has none"),
        (dict(refine_steps=-1), "refine_steps: -1 is not a whole number of at least 0"),
        (dict(refine_dilations=()), "refine_dilations: 0 is not a whole number of at least 1"),
        (dict(words="background", threshold=1.5), "threshold: 1.5 is not a number from 0 to 1"),
        (dict(words="background", threshold=float("nan")), "threshold: nan is not a number"),
        (dict(words="background", area_threshold=-0.1), "area_threshold: -0.1 is not a number from 0 to 1"),
        (dict(logit_scale=0), "logit_scale: 0 is not a number from 0.001"),
        (dict(mode="naclip", gaussian_std=0), "gaussian_std: 0 is not a number from 0.01"),
        (dict(mode="self", similarity="none"), "similarity 'none' needs gaussian_std"),
        (dict(test_cfg=dict(mode="slide", crop_size=(8.5, 8))), "test_cfg.crop_size: 8.5 is not a whole number"),
        (dict(test_cfg=dict(mode="slide", crop_size=8)), r"test_cfg.crop_size is \(height, width\)"),
        (dict(test_cfg=dict(mode="slide")), "mode 'slide' needs test_cfg.crop_size"),
        (dict(words="dog; cat, cat"), "given twice: cat"),
        (dict(words="dog;, cat"), "word 2 of 3 is empty"),
        (dict(mode="pool"), "mode 'pool' is not one of pooled, proxy, self, sclip, clearclip, naclip, naive, tokens"),
        (dict(mode="self", similarity="kq"), "similarity 'kq' is not one of"),
        (dict(threshold=0.3), "begin the words with 'background'"),
        (dict(mode="proxy"), "no default proxy for a CLIP given by fields"),
        (dict(test_cfg=dict(mode="slide", crop_size=(8, 8), stride=(9, 9))), "would leave gaps"),
        (dict(templates="a photo"), "template"),
    ],
)
def test_bad_input(clip, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        segmenter(clip, **options)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("PE-Spatial-B16-512", "PE-Spatial-B16-512 has no text tower; models with a text tower: PE-Core-T16-384, "),
        (dict(vision="PE-Lang-L14-448"), "PE-Lang-L14-448 has no text tower; models with a text tower: PE-Core-T16"),
        (dict(visual="PE-Core-B16-224"), "clip has no visual: it has vision, text and vision_options, or a type"),
        (dict(text="PE-Core-B16-224"), "clip lacks vision: a published model such as PE-Core-L14-336"),
    ],
)
def test_models_that_cannot_be_built(clip, message):
    with pytest.raises(ValueError, match=message):
        segmenter(clip)


def without(state, *prefixes):
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {key[7:]: value for key, value in state.items() if key.startswith("visual.")},
            "weights.pt contains only an image tower .* models with both towers: PE-Core-T16-384, ",
        ),
        (
            lambda state: {key: value for key, value in state.items() if key.startswith("visual.")},
            "weights.pt contains no text tower .* models with both towers: PE-Core-T16-384, ",
        ),
        (
            lambda state: state | dict(text_projection=torch.zeros(32, 8)),
            r"weights.pt does not fit the text tower .* text_projection \(32, 8\) for \(32, 16\)",
        ),
        (
            lambda state: without(state, "visual.attn_pool.probe"),
            "weights.pt does not fit .* missing .* attn_pool.probe",
        ),
        (lambda state: state | dict(more=torch.zeros(1)), "weights.pt does not fit .* unknown to the model: more"),
    ],
)
def test_checkpoints_that_do_not_fit(clip, change, message):
    """Strictly, in one line; Spatial and Lang files are told what has a text tower."""
    with pytest.raises(CheckpointError, match=message):
        load_model_state(segmenter(tiny_clip()), change(clip.state_dict()), "weights.pt")


def test_long_word_is_named_once(clip, monkeypatch):
    """With the word, not with its 80 prompts."""
    told = []
    monkeypatch.setattr("pe_dense.language.preprocessing.print_log", lambda text, **_: told.append(text))
    long = "a very " + "very " * 20 + "long word"
    model = segmenter(clip, words=["cat", long], templates="imagenet")
    assert model.text_embeddings.shape == (2, 16)
    shown = f"{long[:60]}..."
    assert told == [f"text {shown!r} has more than the 16 tokens of the context and was truncated"]


def test_from_a_config(clip, tmp_path):
    save_clip(clip, tmp_path / "clip.pt")
    config = dict(type="pe_dense.OpenVocabularySegmenter", clip=str(tmp_path / "clip.pt"), words=["cat", "dog"])
    model = MODELS.build(config)
    assert not model.train().training
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    inputs = torch.from_numpy(pixels).permute(2, 0, 1)
    (sample,) = model.test_step(dict(inputs=[inputs], data_samples=[SegDataSample(metainfo=dict(ori_shape=(40, 40)))]))
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    embeddings = model.patch_embeddings(rgb)[0] @ model.text_embeddings.T
    maps = F.interpolate(embeddings.transpose(1, 2).unflatten(2, (5, 5)), (40, 40), mode="bilinear")
    assert (maps.argmax(1) == sample.pred_sem_seg.data).float().mean() > 0.99


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    """A checkpoint and a photo."""
    folder = tmp_path_factory.mktemp("words")
    save_clip(clip, folder / "clip.pt")
    (folder / "photo.png").write_bytes(photo_file((50, 37)))
    return folder


def drawn(folder, *arguments):
    """Labels and names by a run of tools/predict.py, whose pictures go to a new folder."""
    out = folder / f"out{len(list(folder.iterdir()))}"
    ended = call_tool("predict", *arguments[:2], folder / "photo.png", "--out", out, "--device", "cpu", *arguments[2:])
    assert ended.returncode == 0, ended.stderr
    told = json.loads((out / "photo.json").read_text())["classes"]
    assert sum(item["share"] for item in told) == pytest.approx(1)
    assert Image.open(out / "photo.png").width > 100  # photo, labels and legend
    return np.asarray(Image.open(out / "photo_labels.png")), {item["name"] for item in told}


SMALL = ["model.test_cfg.mode=whole", "test_dataloader.dataset.pipeline.1.scale=[2048,40]", "model.templates=photo"]


def test_tool(folder):
    """A label map, a legend and shares for each image, with a model as the first argument."""
    model = folder / "clip.pt"
    labels, names = drawn(folder, model, "words", "--words", "a cat, dog; puppy", "--cfg-options", *SMALL)
    assert labels.shape == (37, 50) and labels.max() <= 1 and names <= {"a cat", "dog"}
    background = ["--words", "background; wall, dog", "--cfg-options", *SMALL, "model.threshold=1.0"]
    labels, names = drawn(folder, model, "words", *background)
    assert labels.max() == 0 and names == {"background"}
    clearclip = ["--words", "dog, cat", "--cfg-options", *SMALL, "model.mode=clearclip", "model.refine_steps=2"]
    assert drawn(folder, model, "words", *clearclip)[0].shape == (37, 50)


def test_tool_with_a_config(folder):
    """With the config's own classes and checkpoint, or with other words."""
    text = f"model.clip.vision={VISION}".replace(" ", ""), f"model.clip.text={TEXT}".replace(" ", "")
    options = ["--cfg-options", *text, "model.test_cfg.mode=whole", "model.templates=photo"]
    _, names = drawn(folder, "shapes_words_pe_tiny", folder / "clip.pt", *options)
    assert names <= {"background", "circle", "square", "triangle", "star", "ring", "cross", "crescent", "heart"}
    own = [f"model.init_cfg={{'type':'Pretrained','checkpoint':'{folder / 'clip.pt'}'}}"]
    labels, names = drawn(folder, "shapes_words_pe_tiny", "words", "--words", "dog, cat", *options, *own)
    assert names <= {"dog", "cat"}
    assert np.array_equal(
        labels,
        drawn(
            folder,
            folder / "clip.pt",
            "words",
            "--words",
            "dog, cat",
            "--cfg-options",
            "model.test_cfg.mode=whole",
            "test_dataloader.dataset.pipeline.1.scale=[2048,37]",
            "model.templates=photo",
        )[0],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PE-Core-B16-224", "words", "--words", " , "], "the list of words is empty"),
        (["PE-Core-B16-224", "words", "--words", "cat,dog,cat"], "class names are given twice: cat"),
        (["PE-Core-B16-224", "last.pth", "--words", "cat"], "the second one is 'words', got 'last.pth'"),
        (["PE-Spatial-B16-512", "words", "--words", "cat"], "PE-Spatial-B16-512 has no text tower"),
        (
            ["shapes_words_pe_tiny", "words", "--words", "cat", "--cfg-options", "model.init_cfg=None"],
            "has no pretrained weights: name a CHECKPOINT",
        ),
        (["PE-Core-B16-224", "words"], "CHECKPOINT 'words' stands for a model without training: name its classes by"),
        (["ade20k_linear_pe_l14", "words", "--words", "cat"], "needs training: name the CHECKPOINT"),
        (
            ["ade20k_linear_pe_l14", "a.pth", "--words", "cat"],
            "is drawn by pe_dense.SegmentationPredictor, which has no wo",
        ),
        (["PE-Core-B16-224", "words", "--words", "cat", "--tta"], "--words does not go with --tta"),
    ],
)
def test_tool_refuses(folder, tmp_path, arguments, message):
    ended = call_tool("predict", *arguments[:2], folder / "photo.png", *arguments[2:], "--out", tmp_path / "out")
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr


def test_maps_of_words():
    """The better synonym counts, and a pixel that is unsure has no word, or the background."""
    similarities = torch.tensor([[[0.5, 0.1]], [[0.2, 0.3]], [[0.1, 0.35]]])
    classes = torch.tensor([0, 0, 1])
    cosines, labels = word_maps(similarities, classes, (1, 2), scale=40.0)
    torch.testing.assert_close(cosines, torch.tensor([[[0.5, 0.3]], [[0.1, 0.35]]]))
    assert labels.tolist() == [[0, 1]]
    # The second pixel's best score is exp(14) / (exp(4) + exp(12) + exp(14)) = 0.881.
    assert word_maps(similarities, classes, (1, 2), 40.0, 0.87)[1].tolist() == [[0, 1]]
    assert word_maps(similarities, classes, (1, 2), 40.0, 0.89)[1].tolist() == [[0, 2]]
    assert word_maps(similarities, classes, (1, 2), 40.0, 0.89, has_background=True)[1].tolist() == [[0, 0]]
