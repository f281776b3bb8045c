"""Lock of a work dir, so that two runs never write to one folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from pe_dense.utils.errors import ConfigError

_NAME = ".run.lock"
_HELD: dict[str, int] = {}  # file descriptors by real path; a POSIX lock is gone when any descriptor of it is closed


def lock_work_dir(work_dir: str | Path) -> None:
    """Lock a folder for this process, until :func:`unlock_work_dir` or the end of the process.

    The lock is the kernel's (POSIX), so one of a killed run is gone with it; the file ``.run.lock`` stays and names the
    holder. Where the file system has no locks, the holder that the file names counts: on this machine it must be
    alive, on another one it is taken for alive.

    Args:
        work_dir: is made if need be.

    Raises:
        ConfigError: if another process has the lock, or the folder can't be written to.
    """
    folder = Path(work_dir)
    path = folder / _NAME
    if os.path.realpath(path) in _HELD:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"work dir {folder} is not a folder: choose another one by --work-dir FOLDER") from None
    except OSError as error:
        raise ConfigError(
            f"work dir {folder} can't be written to ({error.strerror}): choose another one by --work-dir FOLDER"
        ) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except (BlockingIOError, PermissionError):
        free = False
    except OSError:  # no locks in this file system
        free = not _alive(_holder(path))
    if not free:
        os.close(descriptor)
        raise ConfigError(
            f"work dir {folder} is in use by {_described(_holder(path))}: wait for it or end it, or choose another "
            f"folder by --work-dir FOLDER. (If that run is gone and its file system has no locks, remove {path})"
        )
    own = dict(
        host=socket.gethostname(), pid=os.getpid(), started=time.strftime("%Y-%m-%d %H:%M:%S"), born=_born("self")
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(own).encode(), 0)
    _HELD[os.path.realpath(path)] = descriptor


def unlock_work_dir(work_dir: str | Path) -> None:
    """Give a folder free, if this process has it."""
    descriptor = _HELD.pop(os.path.realpath(Path(work_dir) / _NAME), None)
    if descriptor is not None:
        with contextlib.suppress(OSError):  # a full disk must not hide how the run ended
            os.ftruncate(descriptor, 0)
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
    """When a process began, in the kernel's ticks: tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _described(holder: dict) -> str:
    if not holder:
        return "another run"
    return f"process {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"
