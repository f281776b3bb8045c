"""Open-vocabulary segmentation: modes, windows, independence of the batch, thresholds, bad input, the tool."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import photo_file, tiny_tower
from helpers.tool_runs import run_tool
from mmseg.structures import SegDataSample
from PIL import Image

from pe_dense.language import save_clip
from pe_dense.language.dense import label_map, proxy_weights, suppress_small_classes, word_maps
from pe_dense.language.open_vocabulary import OpenVocabularySegmenter, parse_synonyms
from pe_dense.registry import MODELS


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
    dict(mode="self", similarity="qq+kk", residual=True),
    dict(mode="self", similarity="kk", gaussian_std=5.0, rotated=True),
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


def test_synonyms():
    names, queries, classes = parse_synonyms("background; sky;wall, dog ,person; man")
    assert names == ["background", "dog", "person"] and classes.tolist() == [0, 0, 0, 1, 2, 2]
    assert queries == ["background", "sky", "wall", "dog", "person", "man"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(words=""), "the list of words is empty"),
        (dict(words="dog; cat, cat"), "given twice: cat"),
        (dict(words="dog;, cat"), "word 2 of 3 is empty"),
        (dict(mode="pool"), "mode 'pool' is not one of pooled, proxy, self, naive"),
        (dict(mode="self", similarity="kq"), "similarity 'kq' is not one of"),
        (dict(threshold=0.3), "begin the words with 'background'"),
        (dict(mode="proxy"), "no default proxy for a CLIP given by fields"),
        (dict(test_cfg=dict(mode="slide", crop_size=(8, 8), stride=(9, 9))), "would leave gaps"),
        (dict(templates="a photo"), "template"),
    ],
)
def test_bad_input(clip, options, message):
    with pytest.raises(ValueError, match=message):
        segmenter(clip, **options)


def test_from_a_config(clip, tmp_path):
    save_clip(clip, tmp_path / "clip.pt")
    config = dict(type="pe_dense.OpenVocabularySegmenter", clip=str(tmp_path / "clip.pt"), words=["cat", "dog"])
    model = MODELS.build(config)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    inputs = torch.from_numpy(pixels).permute(2, 0, 1)
    (sample,) = model.test_step(dict(inputs=[inputs], data_samples=[SegDataSample(metainfo=dict(ori_shape=(40, 40)))]))
    rgb = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    embeddings = model.patch_embeddings(rgb)[0] @ model.text_embeddings.T
    maps = F.interpolate(embeddings.transpose(1, 2).unflatten(2, (5, 5)), (40, 40), mode="bilinear")
    assert (maps.argmax(1) == sample.pred_sem_seg.data).float().mean() > 0.99


def test_tool(clip, tmp_path):
    """A label map, a legend and shares for each image."""
    save_clip(clip, tmp_path / "clip.pt")
    (tmp_path / "photo.png").write_bytes(photo_file((50, 37)))
    arguments = [tmp_path / "clip.pt", "words", tmp_path / "photo.png", "--out", tmp_path / "out", "--device", "cpu"]
    ended = run_tool("predict", *arguments, "--words", "a cat, dog; puppy")
    assert ended.returncode == 0, ended.stderr
    labels = np.asarray(Image.open(tmp_path / "out/photo_labels.png"))
    told = json.loads((tmp_path / "out/photo.json").read_text())
    assert labels.shape == (37, 50) and labels.max() <= 1
    assert sum(item["share"] for item in told["classes"]) == pytest.approx(1)
    assert {item["name"] for item in told["classes"]} <= {"a cat", "dog"}


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


def test_a_word_that_is_too_long_is_named_once(clip, monkeypatch):
    lines = []
    monkeypatch.setattr("pe_dense.language.preprocessing.print_log", lambda line, **_: lines.append(line))
    segmenter(clip, words=["grass", "a very " + 15 * "big " + "dog", 20 * "x "], templates="vild")
    (line,) = lines
    assert line.startswith("text 'a very big big") and "' and 1 more has more than the 16 tokens" in line
