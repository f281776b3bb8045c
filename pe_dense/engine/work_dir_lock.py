"""Lock a work dir, so that two runs never write to the same folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.errors import ConfigError

_NAME = ".run.lock"  # always empty: replacing a file would lose its lock
_OWNER = ".run_owner.json"
_HELD: dict[str, int] = {}  # file descriptors by real path; closing any descriptor of a file releases its POSIX lock


def lock_work_dir(work_dir: str | Path) -> None:
    """Lock a folder for this process, until :func:`unlock_work_dir` or the end of the process.

    It is a POSIX lock on the empty file ``.run.lock``, so the kernel releases it if the run is killed. The owner is
    stored in ``.run_owner.json``, which remains after a kill. On file systems without locks, that owner is checked
    instead: on this host its process must be alive, on another host it is assumed to be alive.

    Args:
        work_dir: folder, created if missing.

    Raises:
        ConfigError: if another process has the lock, or the folder is not writable.
        WriteError: if the disk is full.
    """
    folder = Path(work_dir)
    path, owner = folder / _NAME, folder / _OWNER
    if os.path.realpath(path) in _HELD:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"work dir {folder} is not a folder: choose another one by --work-dir FOLDER") from None
    except OSError as error:
        raise ConfigError(
            f"work dir {folder} cannot be written to ({error.strerror}): choose another one by --work-dir FOLDER"
        ) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except (BlockingIOError, PermissionError):
        free = False
    except OSError:  # no locks in this file system
        free = not _alive(_holder(owner))
    if not free:
        os.close(descriptor)
        raise ConfigError(
            f"work dir {folder} is in use by {_described(_holder(owner))}: wait for it or end it, or choose another "
            f"folder by --work-dir FOLDER. (If that run is gone and its file system has no locks, remove {owner})"
        )
    own = dict(
        host=socket.gethostname(), pid=os.getpid(), started=time.strftime("%Y-%m-%d %H:%M:%S"), born=_born("self")
    )
    try:
        write_json(owner, own)
    except BaseException:
        os.close(descriptor)
        raise
    _HELD[os.path.realpath(path)] = descriptor


def unlock_work_dir(work_dir: str | Path) -> None:
    """Unlock a folder that was locked by this process."""
    descriptor = _HELD.pop(os.path.realpath(Path(work_dir) / _NAME), None)
    if descriptor is not None:
        with contextlib.suppress(OSError):
            (Path(work_dir) / _OWNER).unlink()
        os.close(descriptor)


def _holder(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _alive(holder: dict) -> bool:
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    born = _born(holder.get("pid"))
    return born is not None and born == holder.get("born")


def _born(pid) -> str | None:
    """Return the start time of a process in kernel ticks, which distinguishes it from a later one with the same PID."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _described(holder: dict) -> str:
    if not holder:
        return "another run"
    return f"process {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"
