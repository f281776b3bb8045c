"""A folder of recordings that is missing, unreadable or empty makes golden tests fail instead of skipping them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.recordings import OWN_FOLDER, by_recording, recordings

TESTS = Path(__file__).parent


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "other files"])
def test_folder_without_recordings(tmp_path, kind):
    folder = tmp_path / "golden"
    if kind == "file":
        folder.touch()
    elif kind != "missing":
        folder.mkdir()
    if kind == "other files":
        (folder / "README.md").touch()
    with pytest.raises(OSError, match=str(folder)):
        recordings("deta.npz", folder=folder)
    (parameter,) = by_recording("deta.npz", folder=folder).args[1]
    assert parameter.values == (folder / "deta.npz",) and not parameter.marks


def test_unreadable_folder(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", denied)
    (parameter,) = by_recording("deta.npz", folder=tmp_path).args[1]
    assert "Permission denied" in parameter.id


def test_kind_that_is_missing(tmp_path):
    """It must be in the repository's own folder; a folder of other recordings may contain other kinds."""
    with pytest.raises(FileNotFoundError, match=r"contains no recording nothing\*\.npz"):
        recordings("nothing*.npz", folder=OWN_FOLDER)
    (tmp_path / "deta_7.npz").touch()
    (tmp_path / "deta_inputs_7.npz").touch()
    assert recordings("tower_*.npz", folder=tmp_path) == []
    assert recordings("deta*.npz", ["deta_inputs*"], folder=tmp_path) == [tmp_path / "deta_7.npz"]


MODULE = """
from helpers.recordings import Recording, by_recording

@by_recording("deta*.npz")
def test_golden(path):
    assert Recording(path).names
"""


def test_golden_tests_fail_without_their_folder(tmp_path):
    (tmp_path / "test_golden_one.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path), "test_golden_one.py"]
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = dict(os.environ, PE_DENSE_GOLDEN=str(tmp_path / "missing"), PYTHONPATH=paths)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 failed" in done.stdout and "skipped" not in done.stdout
