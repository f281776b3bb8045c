"""Run tools/explore.py in a separate process."""

import ast
import http.client
import importlib.util
import io
import json
import signal
import subprocess
import sys
import time
from urllib.parse import urlencode, urlsplit

import pytest
from helpers.warm_process import ROOT, WarmProcess
from PIL import Image

TOWER = "PE-Spatial-T16-512=random"


def ignore_interrupts():
    """A shell script starts programs in the background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Fresh(subprocess.Popen):
    """Start Python anew; arguments are those of :class:`WarmProcess`."""

    def __init__(self, *command, output, errors):
        with open(output, "w") as out, open(errors, "w") as err:
            command = [sys.executable, *command]
            super().__init__(command, cwd=ROOT, stdout=out, stderr=err, preexec_fn=ignore_interrupts)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [True, False])
def test_signals_end_it_with_exit_code_0(tmp_path, ending, busy):
    """Also while a backbone runs: the running thread must not abort the process, which only a fresh one shows."""
    command = ["tools/explore.py", TOWER, "--port", "0", "--device", "cpu", "--max-size", "1536"]
    files = dict(output=tmp_path / "out", errors=tmp_path / "err")
    process = Fresh(*command, **files) if busy else WarmProcess(*command, **files, ignored=[signal.SIGINT])
    try:
        connection = http.client.HTTPConnection(address_in(tmp_path / "out", process), timeout=60)
        connection.request("GET", "/")
        assert b"Feature explorer" in connection.getresponse().read()
        if busy:
            content = io.BytesIO()
            Image.new("RGB", (64, 64)).save(content, "PNG")
            connection.request("POST", "/image", content.getvalue())
            image = json.loads(connection.getresponse().read())["image"]
            query = dict(tower=TOWER, layer=0, size=1536, image=image)
            connection.request("GET", f"/colors?{urlencode(query)}")
            time.sleep(0.7)  # the run itself takes seconds
        process.send_signal(ending)
        assert process.wait(60) == 0
    finally:
        process.send_signal(signal.SIGKILL)
    connection.close()
    (line, *more) = (tmp_path / "out").read_text().splitlines()
    assert line.startswith("http://127.0.0.1:") and more == [""]
    assert (tmp_path / "err").read_text() == ""


def address_in(path, process):
    """Wait for the line with the page's address."""
    end = time.monotonic() + 120
    while "(Ctrl+C ends)" not in (path.read_text() if path.exists() else ""):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    address = urlsplit(path.read_text().split()[0])
    assert address.hostname == "127.0.0.1"
    return address.netloc


def test_starting_imports_no_models_but_the_backbones():
    """Words need mmseg and its tokenizer, which take seconds and print lines; imported with the first words."""
    code = "import sys, pe_dense.apps.explorer.cli; print({name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    heavy = {"ftfy", "matplotlib", "mmcv", "mmdet", "mmseg", "skimage", "timm"}
    if importlib.util.find_spec("transformers") is None:  # MMEngine imports it, and with it, beside peft, these:
        heavy |= {"scipy", "torchvision"}
    assert done.returncode == 0, done.stderr
    assert {"pe_dense", "torch"} <= ast.literal_eval(done.stdout)
    assert not ast.literal_eval(done.stdout) & heavy
