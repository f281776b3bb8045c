"""The explorer's API over HTTP, and the options of its start."""

import io

import numpy as np
import pytest
from helpers.explorer_server import request, serving
from helpers.tiny_towers import ARCH, photo_file, tiny_tower
from PIL import Image

from pe_dense.apps.explorer import Explorer
from pe_dense.apps.explorer.app import MAX_BYTES, is_loopback
from pe_dense.apps.explorer.cli import start
from pe_dense.utils.errors import ConfigError


@pytest.fixture(scope="module")
def explorer():
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2, patch_size=8, image_size=32)))
    return Explorer(towers, max_size=128)


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
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, content, headers = ask(path)
        assert status == 200
        assert headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert b"http" not in content
        assert b"//" not in content.replace(b"\n// ", b"").replace(b"  // ", b"").replace(b"; // ", b"")


def test_describe(ask):
    assert ask("/describe")[1] == dict(
        towers=[dict(name="first", layers=3, patch=4, size=16), dict(name="second", layers=2, patch=8, size=32)],
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
        ("/colors", dict(tower="third"), "unknown backbone 'third'; available: first, second"),
        ("/colors", dict(layer=3), "layer 3 is out of range: first has layers 0 to 2"),
        ("/colors", dict(layer="x"), "layer must be of type int, got 'x'"),
        ("/colors", dict(size="9" * 5000), "size must be of type int, got '99999"),
        ("/colors", dict(size=4096), "size 4096 is out of range: it must be 64 to 128 px"),
        ("/colors", dict(image="0"), "image expired; upload it again"),
        ("/similarity", dict(x=1.5, y=0, source="{0}"), "point 1.5,0 is outside the image"),
        ("/similarity", dict(x="nan", y=0, source="{0}"), "point nan,0 is outside the image"),
        ("/similarity", dict(x=0.5, y=0.5), "/similarity needs the parameter source"),
        ("/image", dict(), "image expired; upload it again"),
    ],
)
def test_invalid_parameters(ask, images, path, query, message):
    query = dict(tower="first", layer=0, size=64, image=images[0] if path != "/image" else "0") | query
    query = {key: value.format(*images) if isinstance(value, str) else value for key, value in query.items()}
    status, content, _ = ask(path, **query)
    assert status == 400
    assert message in content["error"]


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
