"""Run the tools in a separate process, as a user does."""

import io
import runpy
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from helpers.warm_process import ROOT, WarmProcess

CONFIG = ROOT / "configs" / "shapes_maskrcnn_pe_tiny.py"


def run_tool(name, *arguments, fresh=False, timeout=300):
    """Run a tool in a separate process, in the project's folder.

    Args:
        name: of the tool.
        arguments: its arguments.
        fresh: start Python anew, as a user does, instead of forking a process that has imported everything.
        timeout: in seconds.
    """
    command = [sys.executable, f"tools/{name}.py", *map(str, arguments)]
    if fresh:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "output"), Path(folder, "errors")]
        code = WarmProcess(command[1], *arguments, output=files[0], errors=files[1]).wait(timeout)
        return subprocess.CompletedProcess(command, code, *(file.read_text() for file in files))


def call_tool(name, *arguments):
    """Run a tool in this process, without the seconds of its imports; its result is as that of :func:`run_tool`."""
    command = [str(ROOT / f"tools/{name}.py"), *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(command[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
