"""tools/explore.py, run as a user runs it, but for a process of its own."""

import os
import runpy
import signal
import time
from threading import Event, Thread
from urllib.request import urlopen

import pytest
from helpers.tool_runs import ROOT


@pytest.fixture
def handlers():
    """Signals as a shell leaves them for a program in the background: Ctrl+C is ignored."""
    endings = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(ending) for ending in endings]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    for ending, handler in zip(endings, before, strict=True):
        signal.signal(ending, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_served_until_it_is_ended(ending, monkeypatch, capfd):
    addresses, contents, over = [], [], Event()

    def visit():
        while not addresses and not over.is_set():
            time.sleep(0.02)
            addresses.extend(capfd.readouterr().out.split()[:1])
        if addresses:
            try:
                contents.append(urlopen(addresses[0], timeout=60).read())
            finally:
                os.kill(os.getpid(), ending)

    arguments = ["PE-Spatial-T16-512=random", "--port", "0", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["explore.py", *arguments])
    visitor = Thread(target=visit, daemon=True)
    visitor.start()
    try:
        runpy.run_path(str(ROOT / "tools" / "explore.py"), run_name="__main__")
    finally:
        over.set()
    visitor.join(60)
    assert addresses[0].startswith("http://127.0.0.1:")
    assert b"Feature explorer" in contents[0]
