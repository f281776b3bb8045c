"""The wheel's content, the console command and the package's metadata."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from pe_dense.cli import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the project, since setuptools writes into the folder that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("pe_dense", "configs", "tools"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    stale = folder / "source" / "build" / "lib" / "pe_dense" / "configs" / "removed_config.py"  # of an earlier build
    stale.parent.mkdir(parents=True)
    stale.touch()
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "."]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder)], cwd=folder / "source", capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr[-2000:]
    return next(folder.glob("*.whl"))


def files_in(folder, prefix):
    files = (ROOT / folder).rglob("*")
    return {f"{prefix}/{file.relative_to(ROOT / folder)}" for file in files if file.is_file() and file.suffix != ".pyc"}


def test_wheel_contains_package_configs_and_tools(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = message_from_bytes(archive.read(next(x for x in names if x.endswith("dist-info/METADATA"))))
        scripts = archive.read(next(x for x in names if x.endswith("entry_points.txt"))).decode()
    content = {name for name in names if ".dist-info/" not in name}
    expected = files_in("pe_dense", "pe_dense")
    expected |= files_in("configs", "pe_dense/configs") | files_in("tools", "pe_dense/tools")
    assert content == expected
    assert {"pe_dense/py.typed", "pe_dense/apps/explorer/page/index.html"} <= content
    assert scripts.split() == ["[console_scripts]", "pe-dense", "=", "pe_dense.cli:main"]
    assert metadata["Author"] == "pe_dense maintainers"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert any(name.startswith("uvicorn") for name in metadata.get_all("Requires-Dist"))


@pytest.fixture
def run_installed(wheel, tmp_path):
    """Run Python in an empty directory with the unpacked wheel on its path."""
    site = wheel.parent / "site"
    if not site.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)

    def run(*arguments, path=site):
        environment = os.environ | {"PYTHONPATH": str(path)}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    run.site = site
    return run


def test_installed_commands_and_configs(run_installed):
    code = "from pe_dense.engine.config import load_config; print(load_config('lvis_maskrcnn_pe_b16').filename)"
    loaded = run_installed("-c", code).stdout.splitlines()[-1]  # after lines that mmdet prints
    assert loaded == str(run_installed.site / "pe_dense" / "configs" / "lvis_maskrcnn_pe_b16.py")
    helped = run_installed("-m", "pe_dense", "explore", "--help")
    assert helped.stdout.startswith("usage: pe-dense explore "), helped.stderr
    failed = run_installed("-m", "pe_dense", "train", "lvis_maskrcn_pe_b16")
    assert failed.returncode == 2
    hint = r"did you mean lvis_maskrcnn_pe_b16\b"
    assert re.fullmatch(rf"error: config lvis_maskrcn_pe_b16 not found.*{hint}.*\n", failed.stderr)


def test_overview():
    """It lists each tool, without importing PyTorch."""
    assert {f"{command.script}.py" for command in COMMANDS.values()} == {x.name for x in (ROOT / "tools").glob("*.py")}
    code = "import sys, pe_dense.cli; pe_dense.cli.main([]); print({'torch', 'mmengine', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown.endswith("set()\n")
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", shown, re.MULTILINE)


def test_unknown_command():
    ended = subprocess.run([sys.executable, "-m", "pe_dense", "trian"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown command 'trian'; did you mean train? commands: demo, train")


def test_missing_graphics_library_has_a_remedy(tmp_path):
    """`import cv2` fails if OpenCV's GUI build is installed but libGL is not; the error names the remedy."""
    message = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({message!r})\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "pe_dense", "predict", "shapes_maskrcnn_pe_tiny", "x.pth", "x.png", "--out", "out"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: OpenCV cannot be imported because libGL.so.1 is not installed: run `pip ")
    assert ended.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package(wheel):
    import pe_dense

    assert wheel.name.split("-")[1] == pe_dense.__version__


def test_a_reader_that_ends_early_is_no_error():
    command = f"{sys.executable} -m pe_dense --help | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr
