"""The way of imports: tools -> task rooms -> pyramid, tower, ops -> registry; task rooms do not meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "pe_dense"
TASKS = {"detection", "segmentation", "depth", "video", "alignment", "visual"}
# What each room may import beside itself; `engine` runs configs and serves the task rooms' own tools.
ALLOWED = {
    "ops": set(),
    "registry": set(),
    "io": {"registry"},
    "tower": {"registry", "io"},
    "pyramid": {"registry"},
    "datasets": {"registry", "io"},
    "optim": {"registry", "io", "tower"},
    "engine": {"registry", "io", "tower", "pyramid", "datasets", "optim"},
    "probing": {"registry", "io", "tower", "engine"},
    **{task: {"registry", "io", "tower", "pyramid", "ops", "datasets", "optim", "engine", "probing"} for task in TASKS},
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pe_dense" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        assert set(imported_rooms(path)) <= {"ops"}
        return
    assert room in ALLOWED, f"{room} is a new room: say here what it may import"
    assert set(imported_rooms(path)) <= ALLOWED[room] | {room}


def test_importing_the_package_is_light():
    code = (
        "import sys, pe_dense; print([m for m in ('torch', 'mmcv', 'mmdet', 'mmengine', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
