"""The page's server, asked as a browser asks it."""

import http.client
import io
import json
import socket
import struct
from contextlib import suppress
from threading import Event, Thread
from urllib.parse import urlencode

import numpy as np
import pytest
from helpers.tiny_towers import ARCH, photo_file, tiny_tower
from PIL import Image

from pe_dense.apps.explorer import Explorer, make_server
from pe_dense.apps.explorer.cli import start
from pe_dense.apps.explorer.server import MAX_BYTES, is_loopback
from pe_dense.utils.errors import ConfigError


@pytest.fixture(scope="module")
def explorer():
    towers = dict(first=tiny_tower(), second=tiny_tower(arch=dict(ARCH, layers=2, patch_size=8, image_size=32)))
    return Explorer(towers, max_size=128)


@pytest.fixture(scope="module")
def server(explorer):
    server = make_server(explorer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(server):
    def ask(path, method="GET", body=None, headers=(), **query):
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        connection.request(method, f"{path}?{urlencode(query)}" if query else path, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.getheader("Content-Type") == "application/json":
            content = json.loads(content)
        return answer.status, content, answer.headers

    return ask


@pytest.fixture
def photos(ask):
    return [ask("/photo", "POST", photo_file(size, seed))[1]["photo"] for seed, size in enumerate([(64, 48), (30, 60)])]


def picture(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_page_needs_nothing_from_elsewhere(ask):
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, content, headers = ask(path)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert b"http" not in content
        assert b"//" not in content.replace(b"\n// ", b"").replace(b"  // ", b"")
        assert "default-src 'self'" in headers["Content-Security-Policy"]


def test_it_tells_towers_and_limits(ask):
    assert ask("/describe")[1] == dict(
        towers=[dict(name="first", layers=3, patch=4, size=16), dict(name="second", layers=2, patch=8, size=32)],
        smallest_size=64,
        max_size=128,
        max_bytes=MAX_BYTES,
    )


def test_photos_are_kept_by_content(ask, photos):
    assert ask("/photo", "POST", photo_file((64, 48), 0))[1]["photo"] == photos[0] != photos[1]
    shown = picture(ask("/photo", photo=photos[0])[1])
    assert shown.shape == (360, 480, 3)


def test_exif_orientation_is_honoured(ask):
    exif = Image.Exif()
    exif[0x0112] = 6
    name = ask("/photo", "POST", photo_file(kind="JPEG", exif=exif))[1]["photo"]
    assert picture(ask("/photo", photo=name)[1]).shape == (480, 360, 3)


def test_colours(ask, photos):
    place = dict(tower="first", layer=2, size=64, photo=photos[0])
    status, content, headers = ask("/colours", together=" ".join(photos), **place)
    assert status == 200
    assert headers["Content-Type"] == "image/png"
    together = picture(content)
    assert together.shape == (360, 480, 3)
    assert len(np.unique(together.reshape(-1, 3), axis=0)) > 20
    assert np.array_equal(together, picture(ask("/colours", together=" ".join(reversed(photos)), **place)[1]))
    for other in (dict(layer=1), dict(tower="second", layer=1), dict(size=128), dict(together=photos[0])):
        changed = picture(ask("/colours", **dict(place, together=" ".join(photos)) | other)[1])
        assert not np.array_equal(together, changed)


def test_similarity_in_both_photos(ask, photos):
    place = dict(tower="first", layer=2, size=64, source=photos[0], x=0.3, y=0.6)
    own, other = (ask("/similarity", photo=photo, **place) for photo in photos)
    assert own[2]["X-Cosine"].endswith("to 1.00")
    assert not other[2]["X-Cosine"].endswith("to 1.00")
    assert picture(own[1]).shape == (360, 480, 3)
    assert picture(other[1]).shape == (480, 240, 3)
    token = picture(own[1])[round(0.6 * 360) // 30 * 30 + 15, round(0.3 * 480) // 30 * 30 + 15]
    assert token.tolist() == [200, 0, 0]  # the point's mark, on its token
    assert not np.array_equal(picture(own[1]), picture(ask("/similarity", photo=photos[0], **place | dict(x=0.9))[1]))


def test_maps_are_computed_once(explorer, ask, photos):
    ran = []
    handle = explorer.towers["first"].conv1.register_forward_hook(lambda *_: ran.append(1))
    for layer in (0, 1, 2):
        ask("/colours", tower="first", layer=layer, size=96, photo=photos[0], together=photos[0])
    handle.remove()
    assert len(ran) == 1


def test_old_maps_are_dropped():
    explorer = Explorer(dict(tower=tiny_tower()), cache_bytes=0)
    names = [explorer.add_photo(photo_file(seed=seed)) for seed in range(3)]
    for name in names:
        explorer.colours("tower", 0, 64, name, [])
    assert [key[2] for key in explorer._maps] == names[-1:]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("/colours", dict(tower="third"), "no tower 'third' here, there is first, second"),
        ("/colours", dict(layer=3), "first has layers 0..2, not 3"),
        ("/colours", dict(layer="x"), "invalid literal"),
        ("/colours", dict(size=4096), "size 4096 is not within 64..128"),
        ("/colours", dict(photo="0"), "that photo is not here any more"),
        ("/similarity", dict(x=1.5, y=0, source="{0}"), "lies outside"),
        ("/similarity", dict(x="nan", y=0, source="{0}"), "lies outside"),
        ("/similarity", dict(x=0.5, y=0.5), "/similarity needs source"),
        ("/photo", dict(), "that photo is not here any more"),
    ],
)
def test_bad_requests_are_told(ask, photos, path, query, message):
    query = dict(tower="first", layer=0, size=64, photo=photos[0] if path != "/photo" else "0") | query
    query = {key: value.format(*photos) if isinstance(value, str) else value for key, value in query.items()}
    status, content, _ = ask(path, **query)
    assert status == 400
    assert message in content["error"]


def test_what_is_no_photo_is_refused(ask):
    status, content, _ = ask("/photo", "POST", b"no photo")
    assert status == 415
    assert content["error"] == "the file is not a readable image (no format that is known)"
    assert ask("/photo", "POST", photo_file()[:100])[0] == 415
    status, content, _ = ask("/photo", "POST", headers={"Content-Length": str(MAX_BYTES + 1)})
    assert status == 413
    assert "more than 32 MB" in content["error"]
    assert ask("/elsewhere", "POST", b"")[0] == 404
    assert ask("/../pyproject.toml")[0] == 404


def test_only_its_own_page_may_ask(ask, server):
    assert ask("/describe", headers={"Host": "evil.example"})[0] == 403
    assert ask("/photo", "POST", photo_file(), headers={"Origin": "http://evil.example"})[0] == 403
    own = f"127.0.0.1:{server.server_address[1]}"
    assert ask("/photo", "POST", photo_file(), headers={"Origin": f"http://{own}"})[0] == 200


def test_a_refused_body_is_no_request(server):
    """Another page may post anything here, so what follows its refusal must not be read as a request of ours."""
    own = f"127.0.0.1:{server.server_address[1]}"
    hidden = f"GET /describe HTTP/1.1\r\nHost: {own}\r\n\r\n".encode()
    for method in ("POST", "GET"):
        head = f"{method} /photo HTTP/1.1\r\nHost: {own}\r\nOrigin: http://evil.example\r\n"
        with socket.create_connection(server.server_address, timeout=60) as connection:
            connection.sendall(f"{head}Content-Length: {len(hidden)}\r\n\r\n".encode() + hidden)
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 403")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"Connection: close" in answer


def read_all(connection):
    """What comes until the server ends the connection; it may do so by force, as it leaves a body unread."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_a_connection_that_breaks_off_is_let_go(server, capfd):
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(b"POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets when closed
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(b"POST /photo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).startswith(b"HTTP/1.1 415")
    assert capfd.readouterr().err == ""


def test_what_fails_is_told(ask, photos, explorer, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no memory left\nfor this")

    monkeypatch.setattr(explorer, "colours", fail)
    status, content, _ = ask("/colours", tower="first", layer=0, size=64, photo=photos[0])
    assert (status, content) == (500, {"error": "RuntimeError: no memory left"})
    assert "no memory left" in caplog.text


def test_photos_are_shown_while_a_tower_runs(explorer, ask, photos):
    started, shown = Event(), Event()

    def wait(*_):
        started.set()
        shown.wait(60)

    handle = explorer.towers["second"].conv1.register_forward_hook(wait)
    query = dict(tower="second", layer=0, size=72, photo=photos[0])
    running = Thread(target=lambda: ask("/colours", **query))
    running.start()
    assert started.wait(60)
    name = ask("/photo", "POST", photo_file(seed=7))[1]["photo"]
    assert ask("/photo", photo=name)[0] == 200
    assert running.is_alive()
    shown.set()
    running.join(60)
    handle.remove()


def test_ipv6(explorer):
    try:
        server = make_server(explorer, "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("GET", "/describe")
    assert connection.getresponse().status == 200
    connection.close()
    server.shutdown()
    server.server_close()


def test_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.0.4", "a.b")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_starting(server):
    port = server.server_address[1]
    with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{port} .*: name another --host or --port"):
        start(["PE-Spatial-T16-512=random"], host="127.0.0.1", port=port, max_size=512, device="cpu")
    with pytest.raises(ConfigError, match=r"can't listen on \[2001:db8::1\]:0 .*: name another --host or --port"):
        start(["PE-Spatial-T16-512=random"], host="2001:db8::1", port=0, max_size=512, device="cpu")
    with pytest.raises(ConfigError, match=r"--port 70000 is not within 0\.\.65535"):
        start(["a"], host="127.0.0.1", port=70000, max_size=512, device="cpu")
    with pytest.raises(ValueError, match=r"device nonsense can't be used here \(.*\): name another, such as cpu"):
        start(["a"], host="127.0.0.1", port=0, max_size=512, device="nonsense")
    with pytest.raises(ConfigError, match="a tower is named twice"):
        start(["a", "a"], host="127.0.0.1", port=0, max_size=512, device="cpu")
    with pytest.raises(ConfigError, match="--max-size 10 is below 64"):
        start(["a"], host="127.0.0.1", port=0, max_size=10, device="cpu")
    with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
        start(["absent.pth"], host="127.0.0.1", port=0, max_size=512, device="cpu")
