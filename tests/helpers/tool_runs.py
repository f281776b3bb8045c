"""Running the tools as a user does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "shapes_maskrcnn_pe_tiny.py"


def run_tool(name, *arguments, **options):
    """Run a tool as a user does, from the project's folder."""
    command = [sys.executable, f"tools/{name}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)
