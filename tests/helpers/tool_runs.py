"""Run the tools in a separate process, as a user does."""

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "shapes_maskrcnn_pe_tiny.py"


def run_tool(name, *arguments, **options):
    """Run a tool in a separate process, in the project's folder."""
    command = [sys.executable, f"tools/{name}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


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
