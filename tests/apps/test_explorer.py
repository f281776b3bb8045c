"""HTTP API of the explorer and its command-line options."""

import base64
import io

import numpy as np
import pytest
import torch
from helpers.explorer_server import request, serving
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import ARCH, photo_file, tiny_tower
from PIL import Image

from pe_dense.apps.explorer import Explorer
from pe_dense.apps.explorer.app import MAX_BYTES, is_loopback
from pe_dense.apps.explorer.cli import _open, start
from pe_dense.backbones import save_weights
from pe_dense.language import OpenVocabularySegmenter, save_clip
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError
from pe_dense.visualization.features import prepare

PATCHES = ["pooled", "proxy", "self", "sclip", "clearclip", "naclip", "naive"]


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


@pytest.fixture(scope="module")
def explorer(clip):
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2, patch_size=8, image_size=32)))
    return Explorer(towers | dict(core=clip.visual), dict(core=clip), max_size=128)


@pytest.fixture(scope="module")
def server(explorer):
    with serving(explorer) as server:
        yield server


@pytest.fixture
def ask(server):
    return lambda path, *args, **options: request(server.address, path, *args, **options)


@pytest.fixture
def images(ask):
    return [ask("/image", "POST", photo_file(size, seed))[1]["image"] for seed, size in enumerate([(64, 48), (30, 60)])]


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_page_refers_to_no_other_host(ask):
    for path, kind in (
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/words.js", "text/javascript"),
    ):
        status, content, headers = ask(path)
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert b"http" not in content
        assert b"//" not in content.replace(b"\n// ", b"").replace(b"  // ", b"").replace(b"; // ", b"")


def test_describe(ask):
    assert ask("/describe")[1] == dict(
        towers=[
            dict(name="first", layers=3, patch=4, size=16, no_words="first has no text tower; load PE-Core-B16-224"),
            dict(name="second", layers=2, patch=8, size=32, no_words="second has no text tower; load PE-Core-B16-224"),
            dict(name="core", layers=2, patch=8, size=32, patches=PATCHES),
        ],
        min_size=64,
        max_size=128,
        max_bytes=MAX_BYTES,
    )


def test_images_are_stored_by_content(ask, images):
    assert ask("/image", "POST", photo_file((64, 48), 0))[1]["image"] == images[0] != images[1]
    assert picture(ask("/image", image=images[0])[1]).shape == (360, 480, 3)


def test_exif_orientation_is_applied(ask):
    exif = Image.Exif()
    exif[0x0112] = 6
    name = ask("/image", "POST", photo_file(kind="JPEG", exif=exif))[1]["image"]
    assert picture(ask("/image", image=name)[1]).shape == (480, 360, 3)


def test_colors(ask, images):
    place = dict(tower="first", layer=2, size=64, image=images[0])
    status, content, headers = ask("/colors", together=" ".join(images), **place)
    assert status == 200
    assert headers["Content-Type"] == "image/png"
    together = picture(content)
    assert together.shape == (360, 480, 3)
    assert len(np.unique(together.reshape(-1, 3), axis=0)) > 20
    assert np.array_equal(together, picture(ask("/colors", together=" ".join(reversed(images)), **place)[1]))
    for other in (dict(layer=1), dict(tower="second", layer=1), dict(size=128), dict(together=images[0])):
        changed = picture(ask("/colors", **dict(place, together=" ".join(images)) | other)[1])
        assert not np.array_equal(together, changed)


def test_clusters(ask, images):
    place = dict(tower="first", layer=2, size=64, image=images[0], together=" ".join(images))
    status, content, _ = ask("/clusters", count=4, **place)
    assert status == 200 and picture(content).shape == (360, 480, 3)
    assert not np.array_equal(picture(content), picture(ask("/clusters", count=2, **place)[1]))
    assert not np.array_equal(picture(content), picture(ask("/clusters", count=4, **place | dict(layer=0))[1]))
    for count in (1, 19):
        status, content, _ = ask("/clusters", count=count, **place)
        assert status == 400 and content["error"] == f"{count} clusters are out of range: it must be 2 to 18"


def test_objects(ask, images):
    place = dict(tower="first", layer=2, size=64, image=images[0])
    found = {}
    for algorithm, tau in (("tokencut", 0.2), ("tokencut", 0.9), ("lost", 0)):
        status, content, _ = ask("/object", algorithm=algorithm, tau=tau, **place)
        assert status == 200 and (picture(content) == (230, 159, 0)).all(-1).sum() > 50  # the box
        found[algorithm, tau] = picture(content)
    assert not np.array_equal(found["tokencut", 0.2], found["lost", 0])
    assert ask("/object", algorithm="sam", tau=0, **place)[1]["error"] == "method 'sam' is not one of tokencut, lost"
    assert ask("/object", algorithm="lost", tau=2, **place)[1]["error"] == "tau 2 is out of range: it must be -1 to 1"


def test_similarity_in_both_images(ask, images):
    place = dict(tower="first", layer=2, size=64, source=images[0], x=0.3, y=0.6)
    own, other = (ask("/similarity", image=image, **place) for image in images)
    assert own[2]["X-Cosine"].endswith("to 1.00")
    assert not other[2]["X-Cosine"].endswith("to 1.00")
    assert picture(own[1]).shape == (360, 480, 3)
    assert picture(other[1]).shape == (480, 240, 3)
    token = picture(own[1])[round(0.6 * 360) // 30 * 30 + 15, round(0.3 * 480) // 30 * 30 + 15]
    assert token.tolist() == [200, 0, 0]  # the point's mark, at the center of its token
    assert not np.array_equal(picture(own[1]), picture(ask("/similarity", image=images[0], **place | dict(x=0.9))[1]))


def test_maps_are_computed_once(explorer, ask, images):
    ran = []
    handle = explorer.towers["first"].conv1.register_forward_hook(lambda *_: ran.append(1))
    for layer in (0, 1, 2):
        ask("/colors", tower="first", layer=layer, size=96, image=images[0], together=images[0])
    handle.remove()
    assert len(ran) == 1


def test_old_maps_are_dropped():
    explorer = Explorer(dict(tower=tiny_tower()), cache_bytes=0)
    names = [explorer.add_image(photo_file(seed=seed)) for seed in range(3)]
    for name in names:
        explorer.colors("tower", 0, 64, name, [])
    assert [key[2] for key in explorer._maps] == names[-1:]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("/colors", dict(tower="third"), "unknown backbone 'third'; available: first, second, core"),
        ("/colors", dict(layer=3), "layer 3 is out of range: first has layers 0 to 2"),
        ("/colors", dict(layer="x"), "layer must be of type int, got 'x'"),
        ("/colors", dict(size="9" * 5000), "size must be of type int, got '99999"),
        ("/colors", dict(size=4096), "size 4096 is out of range: it must be 64 to 128 px"),
        ("/colors", dict(image="0"), "image expired; upload it again"),
        ("/similarity", dict(x=1.5, y=0, source="{0}"), "point 1.5,0 is outside the image"),
        ("/similarity", dict(x="nan", y=0, source="{0}"), "point nan,0 is outside the image"),
        ("/similarity", dict(x=0.5, y=0.5), "/similarity needs the parameter source"),
        ("/image", dict(), "image expired; upload it again"),
        ("/words", dict(tower="first", words="dog"), "first has no text tower; load PE-Core-B16-224"),
        ("/words", dict(tower="core"), "/words needs the parameter words"),
        ("/words", dict(tower="core", words=" "), "the list of words is empty: give class names"),
        ("/words", dict(tower="core", words="dog,,cat"), "word 2 of 3 is empty: remove a comma"),
        ("/words", dict(tower="core", words="dog, Dog "), "class names are given twice: dog"),
        ("/words", dict(tower="core", words="\u200b"), "has no visible character"),
        ("/words", dict(tower="core", words=",".join(map(str, range(21)))), "21 words are too many: at most 20"),
        (
            "/words",
            dict(tower="core", words="a, " + 101 * "b"),
            f"word '{20 * 'b'}...' has 101 characters; at most 100",
        ),
        ("/words", dict(tower="core", words="dog", patches="mean"), "patches 'mean' is not one of pooled, proxy"),
        ("/words", dict(tower="core", words="dog", patches="proxy"), "need the name of a backbone; available: first"),
        ("/words", dict(tower="core", words="dog", background="nan"), "background nan is out of range"),
        ("/words", dict(tower="core", words="dog", size=129), "size 129 is out of range: it must be 64 to 128 px"),
        ("/words.png", dict(tower="core", words="dog", image="0"), "image expired; upload it again"),
    ],
)
def test_invalid_parameters(ask, images, path, query, message):
    query = dict(tower="first", layer=0, size=64, image=images[0] if path != "/image" else "0") | query
    query = {key: value.format(*images) if isinstance(value, str) else value for key, value in query.items()}
    status, content, _ = ask(path, **query)
    assert status == 400
    assert message in content["error"]


def embedded(url):
    return picture(base64.b64decode(url.removeprefix("data:image/png;base64,")))


@pytest.mark.parametrize("query", [dict(), dict(patches="self"), dict(patches="proxy", proxy="second")])
def test_words(explorer, ask, images, clip, query):
    """The maps are those of the segmenter; a word's best synonym counts."""
    place = dict(tower="core", size=64, image=images[0])
    status, found, _ = ask("/words", words="grass, a dog; puppy", **place, **query)
    assert status == 200, found
    options = dict(mode=query.get("patches", "pooled"), templates="photo")
    proxy = explorer.towers["second"] if "proxy" in query else None
    model = OpenVocabularySegmenter(clip, "grass, a dog; puppy", proxy=proxy, **options)
    with torch.no_grad():
        embeddings, grid = model.patch_embeddings(prepare(explorer._image(images[0]), clip.visual, 64))
        cosines = (embeddings[0] @ model.text_embeddings.T).T
        lead = (cosines[0] - cosines[1:].amax(dim=0)).unflatten(0, grid)
    grass, dog = found["words"]
    assert (grass["name"], dog["name"]) == ("grass", "a dog")
    assert (grass["low"], grass["high"]) == pytest.approx((cosines[0].min().item(), cosines[0].max().item()), abs=1e-5)
    assert dog["high"] == pytest.approx(cosines[1:].max().item(), abs=1e-5)
    assert grass["share"] + dog["share"] == pytest.approx(1) and found["none"] == 0
    assert abs(grass["share"] - (lead > 0).float().mean().item()) < 0.1
    assert (grass["color"], dog["color"]) == ("#1f77b4", "#ff7f0e")
    heat, labels = embedded(grass["heat"]), embedded(found["labels"])
    assert heat.shape == labels.shape == (360, 480, 3)
    blue, orange = 0.6 * (180 - 31), 0.6 * (14 - 255)  # of blue less red, at 60 % opacity over a gray photo
    centers = labels[30::60, 30::60].astype(int)  # of the patches
    tints = centers[..., 2] - centers[..., 0]
    sure = lead.abs().numpy() > 0.01
    assert sure.sum() > 10
    assert np.abs(tints - np.where(lead > 0, blue, orange))[sure].max() < 2
    heats = heat[30::60, 30::60].astype(int).sum(axis=-1)
    assert np.corrcoef(heats.ravel(), cosines[0])[0, 1] > 0.8


def test_words_background_and_sheet(ask, images):
    place = dict(tower="core", size=64, image=images[1], words="a dog, 猫")
    sure, unsure = (ask("/words", **place, background=value)[1] for value in (0.5, 1))
    assert sure["none"] == 0 and unsure["none"] == 1
    assert np.ptp(embedded(unsure["labels"]), axis=-1).max() == 0
    status, content, headers = ask("/words.png", **place)
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert picture(content).shape[1] == 4 * 240 + 5 * 12  # the image, two heat maps and the labels of a portrait


def test_words_are_embedded_once(explorer, ask, images, clip, monkeypatch):
    asked, images_run = [], []
    encode = clip.encode_text
    monkeypatch.setattr(clip, "encode_text", lambda text, **options: asked.append(len(text)) or encode(text, **options))
    handle = clip.visual.conv1.register_forward_hook(lambda *_: images_run.append(1))
    place = dict(tower="core", size=96, image=images[0])
    first = ask("/words", words="bird, tree", **place)[1]
    again = ask("/words", words="tree, sea, bird", **place)[1]
    handle.remove()
    assert asked == [2, 1] and images_run == [1]
    assert [word["heat"] for word in first["words"]] == [again["words"][2]["heat"], again["words"][0]["heat"]]
    monkeypatch.setattr("pe_dense.apps.explorer.explorer._MAX_TEXTS", 2)
    ask("/words", words="one, two, three", **place)
    assert list(explorer._texts) == [("core", "two"), ("core", "three")]


def test_words_of_any_text(ask, images):
    place = dict(tower="core", size=64, image=images[0])
    long = "a word that has far more tokens than the context of this tiny model holds"
    names = ["🐕‍🦺", "كلب", "<b>&amp", "x\x07y", long]
    status, found, _ = ask("/words", words=",".join(names), **place)
    assert status == 200
    assert [word["name"] for word in found["words"]] == [*names[:4], long]
    assert found["notes"] == [f"'{long}' is longer than the model's context and was truncated"]
    assert ask("/words.png", words=",".join(names), **place)[0] == 200


def test_words_are_not_read_from_files(ask, images):
    """A page that others may reach shows no file of this machine."""
    status, found, _ = ask("/words", words="voc20.txt", tower="core", size=64, image=images[0])
    assert status == 200 and [word["name"] for word in found["words"]] == ["voc20.txt"]


def test_text_towers_are_found_in_files(clip, tmp_path, monkeypatch):
    save_clip(clip, tmp_path / "clip.pt")
    tower, found = _open(str(tmp_path / "clip.pt"), torch.device("cpu"))
    assert tower is found.visual
    assert torch.equal(found.token_embedding.weight, clip.token_embedding.weight)
    # A repository in open_clip's layout is given without its file, as to load_clip.
    files = []
    for module in ("pe_dense.apps.explorer.cli", "pe_dense.language.clip"):
        monkeypatch.setattr(f"{module}.read_checkpoint", lambda file: files.append(file) or clip_file)
    clip_file = read_checkpoint(tmp_path / "clip.pt")
    assert _open("hf://timm/PE-Core-B-16", torch.device("cpu"))[1] is not None
    assert files == ["hf://timm/PE-Core-B-16/open_clip_model.safetensors"] * 2
    monkeypatch.undo()
    save_weights(tiny_tower(arch="PE-Spatial-T16-512"), tmp_path / "tower.pt")
    tower, found = _open(f"PE-Spatial-T16-512={tmp_path / 'tower.pt'}", torch.device("cpu"))
    assert (tower.name, found) == ("PE-Spatial-T16-512", None)


def encoded(kind, size=(8, 8)):
    content = io.BytesIO()
    Image.new("RGB", size).save(content, kind)
    return content.getvalue()


def test_invalid_uploads(ask, monkeypatch):
    assert ask("/image", "POST", b"no image")[0] == 415
    assert ask("/image", "POST", photo_file()[:100])[0] == 415
    for kind in ("EPS", "PPM", "ICO", "PDF"):  # of these Pillow reads all but PDF, EPS by running Ghostscript
        status, content, _ = ask("/image", "POST", encoded(kind))
        assert (status, "is not a readable image" in content["error"]) == (415, True), kind
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        assert ask("/image", "POST", encoded(kind))[0] == 200
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    status, content, _ = ask("/image", "POST", encoded("PNG", (101, 50)))
    assert status == 415
    assert "101 x 50" in content["error"]
    assert ask("/elsewhere", "POST", b"")[0] == 404
    assert ask("/../pyproject.toml")[0] == 404
    assert ask("/describe", "POST", b"")[0] == 405


def test_failures_are_logged_and_reported(ask, images, explorer, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no memory left\nfor this")

    monkeypatch.setattr(explorer, "colors", fail)
    status, content, _ = ask("/colors", tower="first", layer=0, size=64, image=images[0])
    assert (status, content) == (500, {"error": "RuntimeError: no memory left"})
    assert "in fail" in caplog.text  # the traceback


def test_loopback():
    hosts = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.4", "a.b")
    assert [is_loopback(host) for host in hosts] == [True, True, True, False, False, False]


def test_options(server):
    options = dict(host="127.0.0.1", port=0, max_size=512, device="cpu")
    port = server.address[1]
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} .*: use another --host or --port"):
        start(["PE-Spatial-T16-512=random"], **options | dict(port=port))
    with pytest.raises(ConfigError, match=r"cannot listen on \[2001:db8::1\]:0 .*: use another --host or --port"):
        start(["PE-Spatial-T16-512=random"], **options | dict(host="2001:db8::1"))
    with pytest.raises(ConfigError, match=r"--port 70000 is out of range: it must be 0 to 65535"):
        start(["a"], **options | dict(port=70000))
    with pytest.raises(ValueError, match="device nonsense"):
        start(["a"], **options | dict(device="nonsense"))
    with pytest.raises(ConfigError, match="each backbone may be given once, got a, a"):
        start(["a", "a"], **options)
    with pytest.raises(ConfigError, match="--max-size 10 is too small: it must be at least 64"):
        start(["a"], **options | dict(max_size=10))
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        start(["absent.pth"], **options)
