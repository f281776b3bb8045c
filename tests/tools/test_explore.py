"""Run tools/explore.py in a separate process."""

import http.client
import io
import json
import signal
import subprocess
import sys
import time
from urllib.parse import urlencode, urlsplit

import pytest
from helpers.tool_runs import ROOT
from PIL import Image


def ignore_interrupts():
    """A shell script starts programs in the background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [True, False])
def test_signals_end_it_with_exit_code_0(ending, busy):
    """Also while a backbone runs: the running thread must not abort the process."""
    command = [sys.executable, "tools/explore.py", "PE-Spatial-T16-512=random", "--port", "0", "--device", "cpu"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "--max-size", "1536"], cwd=ROOT, preexec_fn=ignore_interrupts, **pipes) as process:
        try:
            # Libraries print on import, too.
            address = urlsplit(next(line for line in process.stdout if line.startswith("http")).split()[0])
            assert address.hostname == "127.0.0.1"
            connection = http.client.HTTPConnection(address.netloc, timeout=60)
            connection.request("GET", "/")
            assert b"Feature explorer" in connection.getresponse().read()
            if busy:
                content = io.BytesIO()
                Image.new("RGB", (64, 64)).save(content, "PNG")
                connection.request("POST", "/image", content.getvalue())
                image = json.loads(connection.getresponse().read())["image"]
                query = dict(tower="PE-Spatial-T16-512=random", layer=0, size=1536, image=image)
                connection.request("GET", f"/colors?{urlencode(query)}")
                time.sleep(0.7)  # the run itself takes seconds
            process.send_signal(ending)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        connection.close()
    assert (process.returncode, output, errors) == (0, "\n", "")
