"""Two runs never write to the same folder."""

import json
import os
import subprocess
import sys

import pytest
from helpers.linear_run import make_runner

from pe_dense.engine import work_dir_lock
from pe_dense.engine.work_dir_lock import lock_work_dir, unlock_work_dir
from pe_dense.utils.errors import ConfigError

HOLD = """
import sys
from pe_dense.engine.work_dir_lock import lock_work_dir
lock_work_dir(sys.argv[1])
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Start another process that locks the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_until_its_run_ends(tmp_path, other):
    with pytest.raises(
        ConfigError, match=rf"run is in use by process {other.pid} on .*, started 2\d.*--work-dir FOLDER"
    ):
        make_runner(tmp_path)
    other.kill()  # leaves the file
    other.wait()
    assert json.loads((tmp_path / "run" / ".run_owner.json").read_text())["pid"] == other.pid
    make_runner(tmp_path).train()
    assert not (tmp_path / "run" / ".run_owner.json").exists()
    assert make_runner(tmp_path, resume="auto")


def test_file_systems_without_locks(tmp_path, other, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(work_dir_lock.fcntl, "lockf", refuse)
    with pytest.raises(ConfigError, match=f"in use by process {other.pid}"):
        lock_work_dir(tmp_path / "run")
    other.kill()
    other.wait()
    lock_work_dir(tmp_path / "run")
    note = tmp_path / "run" / ".run_owner.json"
    assert json.loads(note.read_text())["pid"] == os.getpid()
    unlock_work_dir(tmp_path / "run")
    note.write_text(json.dumps(dict(host="another", pid=1, started="2026-01-01 00:00:00", born="1")))
    with pytest.raises(ConfigError, match=r"process 1 on another, started 2026-01-01 .*remove .*\.run_owner\.json"):
        lock_work_dir(tmp_path / "run")
    note.write_text("spoiled")
    lock_work_dir(tmp_path / "run")
    unlock_work_dir(tmp_path / "run")


def test_a_work_dir_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        make_runner(tmp_path)
