"""The explorer's server: queue, cancellation, access checks and HTTP framing."""

import asyncio
import http.client
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.parse import urlencode

import pytest
from helpers.explorer_server import request, send_raw, serving
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import photo_file, tiny_tower

from pe_dense.apps.explorer import Explorer
from pe_dense.apps.explorer.app import MAX_BYTES, MAX_RUNS
from pe_dense.apps.explorer.jobs import JobCanceled, JobQueue, QueueFull, check_canceled
from pe_dense.apps.explorer.server import SECURITY_HEADERS


@pytest.fixture(scope="module")
def explorer():
    clip = tiny_clip(layers=3)
    return Explorer(dict(tower=tiny_tower(), core=clip.visual), dict(core=clip), max_size=512)


@pytest.fixture(scope="module")
def server(explorer):
    with serving(explorer) as server:
        yield server


@pytest.fixture
def image(server):
    return request(server.address, "/image", "POST", photo_file())[1]["image"]


@pytest.fixture
def held_tower(explorer):
    """The tower's first block waits until `proceed` is set; `started` counts the runs, `sizes` lists their heights."""

    class Held:
        def __init__(self):
            self.entered, self.proceed, self.sizes, self.blocks = Event(), Event(), [], 0

        def wait(self, module, args):
            self.sizes.append(args[0].shape[2])
            self.entered.set()
            assert self.proceed.wait(60)

        def count(self, *_):
            self.blocks += 1

    held, tower = Held(), explorer.towers["tower"]
    handles = [tower.conv1.register_forward_pre_hook(held.wait)]
    handles += [block.register_forward_hook(held.count) for block in tower.transformer.resblocks]
    yield held
    held.proceed.set()
    for handle in handles:
        handle.remove()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_request(server, path, **query):
    """Send a request and return the connection without waiting for the response."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    connection.request("GET", f"{path}?{urlencode(query)}")
    return connection


def test_images_are_served_while_a_tower_runs(server, image, held_tower):
    running = open_request(server, "/colors", tower="tower", layer=0, size=72, image=image)
    assert held_tower.entered.wait(60)
    name = request(server.address, "/image", "POST", photo_file(seed=7))[1]["image"]
    assert request(server.address, "/image", image=name)[0] == 200
    held_tower.proceed.set()
    assert running.getresponse().status == 200
    running.close()


def test_full_queue_answers_503(server, image, held_tower):
    """Of 200 concurrent requests, those beyond the limit are rejected while the tower still runs."""

    def ask(number):
        query = dict(tower="tower", layer=0, size=64 + number, image=image)
        return request(server.address, "/colors", **query)

    answers = []
    with ThreadPoolExecutor(200) as pool:
        for number in range(200):
            pool.submit(ask, number).add_done_callback(lambda future: answers.append(future.result()))
        wait_until(lambda: len(answers) == 200 - MAX_RUNS)
        assert {(status, content["error"]) for status, content, _ in answers} == {
            (503, "the server is busy; try again")
        }
        assert {headers["Retry-After"] for _, _, headers in answers} == {"1"}
        assert request(server.address, "/describe")[0] == 200
        held_tower.proceed.set()
    assert [status for status, _, _ in answers].count(200) == MAX_RUNS
    assert len(held_tower.sizes) <= MAX_RUNS


def test_abandoned_requests_are_canceled(server, image, held_tower):
    """If clients disconnect, the running computation stops and waiting ones do not start."""
    query = dict(tower="tower", layer=0, image=image)
    abandoned = [open_request(server, "/colors", size=size, **query) for size in (300, 332, 364)]
    assert held_tower.entered.wait(60)
    runs = server._app.runs
    wait_until(lambda: runs._taken == 3)
    for connection in abandoned:
        connection.close()
    wait_until(lambda: runs._taken == 1)  # that of the running one is free when it has ended
    held_tower.proceed.set()
    wait_until(lambda: runs._taken == 0)
    assert len(held_tower.sizes) == 1
    assert held_tower.blocks <= 1
    assert request(server.address, "/colors", size=300, **query)[0] == 200
    assert len(held_tower.sizes) == 2


@pytest.mark.parametrize("part", ["image", "text"])
def test_abandoned_words_are_canceled(server, image, explorer, part):
    """Between the blocks of the image tower and of the text tower."""
    clip, entered, proceed, ran = explorer.clips["core"], Event(), Event(), []
    blocks = list(clip.visual.fsdp_units() if part == "image" else clip.transformer.resblocks)

    def hold(*_):
        entered.set()
        assert proceed.wait(60)

    query = dict(tower="core", size=64, image=image, words=f"a {part}")
    explorer._segmenter("core", "pooled", None)
    handles = [blocks[0].register_forward_hook(hold)]
    handles += [block.register_forward_hook(lambda *_: ran.append(1)) for block in blocks[1:]]
    abandoned = open_request(server, "/words", **query)
    assert entered.wait(60)
    abandoned.close()
    time.sleep(0.2)  # until the server has seen it
    proceed.set()
    wait_until(lambda: server._app.runs._taken == 0)
    for handle in handles:
        handle.remove()
    assert ran == []
    status, content, headers = request(server.address, "/words", **query)
    assert status == 200
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_stopping_cancels_the_running_job(held_tower, explorer):
    with serving(explorer) as server:
        name = request(server.address, "/image", "POST", photo_file(seed=3))[1]["image"]
        connections = [
            open_request(server, "/colors", tower="tower", layer=0, size=size, image=name) for size in (200, 232)
        ]
        assert held_tower.entered.wait(60)
        wait_until(lambda: server._app.runs._taken == 2)
        server.stop()
        wait_until(lambda: server._app.runs._closed)
        held_tower.proceed.set()
        for connection in connections:
            assert connection.getresponse().status == 503
            connection.close()
    assert held_tower.blocks <= 1


@pytest.mark.usefixtures("bounded")
def test_job_queue():
    async def main():
        queue, order, entered = JobQueue(3), [], Event()

        def job(number):
            order.append(number)
            return number

        def endless():
            entered.set()
            while True:
                check_canceled()

        async def run(function, *args):
            with queue.place():
                return await queue.run(function, *args)

        first = asyncio.create_task(run(endless))
        others = [asyncio.create_task(run(job, number)) for number in range(2)]
        await asyncio.to_thread(entered.wait)
        with pytest.raises(QueueFull):
            await run(job, 9)
        others[0].cancel()
        first.cancel()
        assert await others[1] == 1
        assert order == [1]
        assert first.cancelled() and others[0].cancelled()
        with pytest.raises(ZeroDivisionError):
            await run(lambda: 1 / 0)
        entered.clear()
        last = asyncio.create_task(run(endless))
        await asyncio.to_thread(entered.wait)
        queue.close()
        with pytest.raises(JobCanceled):
            await last
        with pytest.raises(JobCanceled):
            await run(job, 9)

    check_canceled()  # does nothing outside of a queue
    asyncio.run(main())


def head(server, *lines, method="GET", path="/describe"):
    host = "{}:{}".format(*server.address)
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def test_every_response_has_the_security_headers(server, image):
    close = "Connection: close"
    requests = {
        200: head(server, close),
        400: head(server, close, path="/image?image=0"),
        403: head(server, close, "Origin: http://evil.example"),
        404: head(server, close, path="/elsewhere"),
        405: head(server, close, method="DELETE"),
        411: head(server, "Transfer-Encoding: chunked", method="POST", path="/image") + b"0\r\n\r\n",
        413: head(server, f"Content-Length: {MAX_BYTES + 1}", method="POST", path="/image"),
        415: head(server, "Content-Length: 1", method="POST", path="/image") + b"x",
    }
    answers = {status: send_raw(server.address, data) for status, data in requests.items()}
    answers["malformed"] = send_raw(server.address, b"\x00\x01\r\n\r\n")
    answers["long head"] = send_raw(server.address, b"GET / HTTP/1.1\r\nA: " + b"x" * (1 << 20))
    assert SECURITY_HEADERS.keys() >= {"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"}
    for case, answer in answers.items():
        assert answer.startswith(b"HTTP/1.1 %d " % (case if isinstance(case, int) else 400)), (case, answer)
        for name, value in SECURITY_HEADERS.items():
            assert f"\r\n{name}: {value}\r\n".lower().encode() in answer.lower(), (case, name)


def test_the_500_response_has_the_security_headers(server, explorer, monkeypatch):
    monkeypatch.setattr(explorer, "describe", lambda: 1 / 0)
    status, _, headers = request(server.address, "/describe")
    assert status == 500
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_requests_of_other_sites_are_refused(server):
    own = "http://{}:{}".format(*server.address)
    for headers in (
        {"Host": "evil.example"},
        {"Host": "[evil"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert request(server.address, "/image", "POST", photo_file(), headers=headers)[0] == 403
        assert request(server.address, "/", headers=headers)[0] == 403
    for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert request(server.address, "/image", "POST", photo_file(), headers=headers)[0] == 200


@pytest.mark.parametrize("length", ["9" * 400, "-1", "+5", "0x5", "5, 6", "5 5", ""])
def test_invalid_content_length_is_a_bad_request(server, length):
    answer = send_raw(
        server.address, head(server, f"Content-Length: {length}", method="POST", path="/image") + b"hello"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Length : 5"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked, chunked"], 400),
        (["Transfer-Encoding: gzip"], 400),
        (["Transfer-Encoding: chunked"], 411),
        (["Content-Length: 5"], 415),  # longer than declared
        (["Content-Length: 5", "Origin: http://evil.example"], 403),
    ],
)
def test_nothing_behind_an_ambiguous_request_is_answered(server, lines, status):
    """Request smuggling: data after an ambiguous request is not processed as another request."""
    for method in ("POST", "GET"):
        hidden = head(server)
        answer = send_raw(server.address, head(server, *lines, method=method, path="/image") + b"0\r\n\r\n" + hidden)
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer.lower()
        if method == "POST":
            assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_a_body_shorter_than_declared_closes_the_connection(server, capfd, monkeypatch):
    short = head(server, "Content-Length: 1000", method="POST", path="/image") + b"abc"
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(short)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets when closed
    assert b"HTTP/1.1 200" not in send_raw(server.address, short, end=True)
    monkeypatch.setattr("pe_dense.apps.explorer.app.READ_SECONDS", 0.1)
    assert send_raw(server.address, short).startswith(b"HTTP/1.1 408")
    wait_until(lambda: server._app.images._taken == 0)
    assert capfd.readouterr().err == ""


def test_idle_connections_are_closed(server, monkeypatch):
    monkeypatch.setattr("pe_dense.apps.explorer.server.IDLE_SECONDS", 0.1)
    assert send_raw(server.address, b"") == b""
    assert send_raw(server.address, head(server)[:30]) == b""


def test_ipv6(explorer):
    try:
        with serving(explorer, "::1") as server:
            assert request(server.address, "/describe")[0] == 200
    except OSError:
        pytest.skip("no IPv6")
