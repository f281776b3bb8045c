"""Atomic writes: complete files or none, on full disks and in killed processes."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers.full_disk import fail_writes_after

from pe_dense.utils import atomic_write as module
from pe_dense.utils.atomic_write import WriteError, atomic_write, write_bytes, write_json, write_text


@pytest.fixture(params=["nameless", "named"])
def kind(request, monkeypatch):
    """Both kinds of temporary files: unnamed if the system supports it, otherwise hidden."""
    module._last_cleaned.clear()
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return request.param


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.usefixtures("kind")
def test_a_file_appears_complete(tmp_path):
    path = tmp_path / "new" / "a.bin"
    for content in (b"old", b"new"):
        with atomic_write(path) as file:
            file.write(content)
            file.flush()
            assert not path.exists() or path.read_bytes() == b"old"
        assert path.read_bytes() == content
    assert names(path.parent) == ["a.bin"]
    write_text(path, "ü\n")
    assert path.read_bytes() == b"\xc3\xbc\n"
    write_json(path, {"a": 1})
    assert path.read_text() == '{"a": 1}\n'


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("named", [False, True])
def test_a_kill_keeps_the_old_file(tmp_path, named):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = f"""
        import os, signal
        from pe_dense.utils.atomic_write import atomic_write
        if {named}:
            del os.O_TMPFILE
        with atomic_write({str(path)!r}) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert path.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "a.bin"]
    assert len(left) == named
    module._last_cleaned.clear()
    write_bytes(path, b"new")
    assert len(names(tmp_path)) == 1 + named  # too young to be removed
    for name in left:
        os.utime(tmp_path / name, (0, time.time() - module.STALE_SECONDS - 1))
    module._last_cleaned.clear()
    write_bytes(path, b"newer")
    assert names(tmp_path) == ["a.bin"]


def test_old_temporary_files_of_living_processes_stay(tmp_path):
    left, foreign = tmp_path / ".pe_dense-0123.part", tmp_path / "old.part"
    for path in (left, foreign):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    with left.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_bytes(tmp_path / "a", b"")
        assert names(tmp_path) == [".pe_dense-0123.part", "a", "old.part"]
    module._last_cleaned.clear()
    write_bytes(tmp_path / "a", b"")
    assert names(tmp_path) == ["a", "old.part"]


@pytest.mark.usefixtures("kind")
def test_writers_in_one_folder_do_not_meet(tmp_path):
    """Two checkpoints written at once into one folder each have their own content."""
    barrier = threading.Barrier(8, timeout=30)

    def write(name):
        with atomic_write(tmp_path / f"{name}.pth") as file:
            file.write(name.encode() * 1000)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(f"{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == [f"{i}.pth" for i in range(8)]
    assert all((tmp_path / f"{i}.pth").read_bytes() == f"{i}".encode() * 1000 for i in range(8))


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("limit", [0, 10, 100_000])
def test_full_disk(tmp_path, monkeypatch, limit):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    fail_writes_after(monkeypatch, limit)
    with pytest.raises(WriteError, match=rf"^Cannot write {path}: no space left on the disk mounted at /.*MB free"):
        write_bytes(path, bytes(200_000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_errors_of_native_libraries_name_the_disk(tmp_path, monkeypatch):
    fail_writes_after(monkeypatch, 10)
    with pytest.raises(WriteError, match="no space left"), atomic_write(tmp_path / "a") as file:
        try:
            file.write(bytes(100_000))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None
    assert names(tmp_path) == []


def test_errors_of_the_block_stay(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), atomic_write(tmp_path / "a"):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("kind")
def test_existing_files_are_kept(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"1", overwrite=False)
    with pytest.raises(FileExistsError, match="a exists; choose another name"):
        write_bytes(path, b"2", overwrite=False)
    other = tmp_path / "b"
    with pytest.raises(FileExistsError, match="b exists"), atomic_write(other, overwrite=False) as file:
        file.write(b"3")
        other.write_bytes(b"4")  # another process was faster
    assert (path.read_bytes(), other.read_bytes()) == (b"1", b"4")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_usual_permissions(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a", b"")
        write_bytes(tmp_path / "b", b"", overwrite=False)
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_links_are_followed(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big_disk" / "a")
    write_bytes(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "big_disk" / "a").read_bytes() == b"1"


@pytest.mark.usefixtures("kind", "bounded")
def test_other_system_errors(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for path, reason in [
        (tmp_path / "folder", "it is a folder"),
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path / "file" / "a", "a part of its path is a file"),
        (tmp_path / "file" / "b" / "a", "a part of its path is a file"),
        (tmp_path / ("x" * 300), "[Nn]ame too long"),
    ]:
        with pytest.raises(WriteError, match=f"^Cannot write {path}: [^\n]*{reason}[^\n]*$"):
            write_bytes(path, b"")
    fail_writes_after(monkeypatch, 0, errno.EIO)
    with pytest.raises(WriteError, match="input/output error of the disk mounted at"):
        write_bytes(tmp_path / "a", b"1")
    monkeypatch.setattr(os, "fsync", lambda fileno: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    with pytest.raises(WriteError, match="read-only disk mounted at"):
        write_bytes(tmp_path / "a", b"")
    assert names(tmp_path) == ["fifo", "file", "folder"]


def test_needs_no_torch():
    code = "import sys, pe_dense.utils.atomic_write; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
