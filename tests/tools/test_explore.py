"""tools/explore.py, run as a user runs it."""

import signal
import subprocess
import sys
from urllib.request import urlopen

import pytest
from tool_runs import ROOT


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_served_until_it_is_ended(ending):
    command = [sys.executable, "tools/explore.py", "PE-Spatial-T16-512=random", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert b"Feature explorer" in urlopen(address, timeout=60).read()
            process.send_signal(ending)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
