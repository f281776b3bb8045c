"""Atomic writes: a file is either written completely or not at all.

Every file that this project writes goes through this module. The new content is written to a temporary file in the same
folder, flushed to the disk and moved to its final name. The old file is never opened for writing, so a process that has
memory-mapped it keeps reading the old content.

On Linux the temporary file has no name (``O_TMPFILE``): the kernel removes it even if the process is killed. On file
systems without that option it is a hidden file ``.pe_dense-<random>.part``, which is removed on any exception. If a
killed process leaves such a file, a later write to the same folder removes it if it has not been changed for an hour
and no process has it locked.

Logs are the exception, since a file that grows by a line cannot be replaced for each of them: see :func:`append_line`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pe_dense.utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STALE_SECONDS = 3600.0
_PREFIX, _SUFFIX = ".pe_dense-", ".part"
_last_cleaned: dict[str, float] = {}  # time of the last search for stale temporary files, by folder
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Descriptions of system errors that a user can fix.
_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up on the disk",
    errno.EROFS: "read-only disk",
    errno.EACCES: "permission denied on the disk",
    errno.EPERM: "permission denied on the disk",
    errno.EFBIG: "the file is larger than allowed on the disk",
    errno.EIO: "input/output error of the disk",
}


class WriteError(UserError, OSError):
    """A file was not written: the disk is full, the folder is not writable, ... The message is one line."""


@contextlib.contextmanager
def atomic_write(
    path: str | Path, mode: str = "wb", *, overwrite: bool = True, newline: str | None = None
) -> Iterator[IO]:
    """Open a file for atomic writing: it is renamed to ``path`` when the block ends, and discarded if the block raises.

    Missing parent folders are created. The file has the usual permissions (0666 without the bits of the umask).
    Symbolic links are followed, so that their target is replaced.

    Args:
        path: the file to write.
        mode: ``"wb"``, or ``"w"`` for UTF-8 text.
        overwrite: replace an existing file.
        newline: as in :func:`open`, for text.

    Yields:
        the open file.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is False, even if another process created it in the
            meantime.
        WriteError: if writing fails; the message names the disk and the path. The old file is unchanged.
        ValueError: for another mode.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}, must be 'wb' or 'w'")
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    _check_target(target, path, overwrite)
    with report_write_errors(path):
        os.makedirs(folder, exist_ok=True)
        _remove_stale(folder)
        raw, temporary = _open_temporary(folder)
    file = io.BufferedWriter(raw)
    if mode == "w":
        file = io.TextIOWrapper(file, encoding="utf-8", newline=newline)
    try:
        try:
            yield file
        except Exception as error:
            # Native libraries (PyTorch, FFmpeg) raise their own errors if a write failed.
            if raw.error is not None and not isinstance(error, WriteError):
                raise _write_error(raw.error, path) from error
            raise
        with report_write_errors(path):
            file.flush()
            os.fsync(raw.fileno())
            temporary = _publish(raw.fileno(), temporary, target, path, overwrite)
    finally:
        with contextlib.suppress(OSError, ValueError):  # a failed flush; the descriptor is closed in any case
            file.close()
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Create a folder atomically: it is renamed to ``path`` when the block ends, and discarded if the block raises.

    Args:
        path: path of the folder, which must be missing or empty.

    Yields:
        an empty temporary folder in the same parent folder, to write to.

    Raises:
        WriteError: if writing fails, or ``path`` is no longer missing or empty.
    """
    target = os.path.realpath(path)
    parent = os.path.dirname(target)
    with report_write_errors(path):
        os.makedirs(parent, exist_ok=True)
        _remove_stale(parent)
        temporary = _temporary_name(parent)
        os.mkdir(temporary)
    try:
        with _folder_lock(temporary), report_write_errors(path):
            yield Path(temporary)
            os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a binary file; errors are those of :func:`atomic_write`."""
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(content)


def write_text(path: str | Path, content: str, *, overwrite: bool = True) -> None:
    """Write a text file in UTF-8; errors are those of :func:`atomic_write`."""
    with atomic_write(path, "w", overwrite=overwrite) as file:
        file.write(content)


def write_json(path: str | Path, value, *, indent: int | None = None, overwrite: bool = True) -> None:
    """Write a value as JSON with a newline at the end; errors are those of :func:`atomic_write` and ``json.dumps``."""
    write_text(path, json.dumps(value, indent=indent) + "\n", overwrite=overwrite)


def append_line(path: str | Path, line: str) -> None:
    """Append a line, or several, to a log file; on failure the file is as before.

    What a full disk lets through of the line is removed again. Only a killed process can leave a part of a line, at the
    end of the file and without a newline: it is removed before the next line is written.

    Args:
        path: UTF-8 text; it and its folder are made if missing.
        line: without the newline at the end.

    Raises:
        WriteError: if the system refuses to write.
    """
    content = (line + "\n").encode(errors="backslashreplace")
    with report_write_errors(path):
        os.makedirs(os.path.dirname(os.path.realpath(path)), exist_ok=True)
    with report_write_errors(path), _locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as fileno:
        end = _cut_part_of_line(fileno)
        try:
            while content:
                content = content[os.write(fileno, content) :]
        except BaseException:
            os.ftruncate(fileno, end)
            if not end:
                os.unlink(path)
            raise


def cut_part_of_line(path: str | Path) -> None:
    """Remove what follows the last newline of a log file: a part of a line, left by a killed process.

    Raises:
        WriteError: if the system refuses to open or truncate the file.
    """
    with report_write_errors(path), _locked(path, os.O_RDWR) as fileno:
        _cut_part_of_line(fileno)


@contextlib.contextmanager
def report_write_errors(path: str | Path) -> Iterator[None]:
    """Convert system errors inside the block to a :class:`WriteError` about ``path``.

    Use it for calls that only write, for example to a temporary folder that is removed on failure.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # already has a message
            raise
        raise _write_error(error, path) from error


def _check_target(target: str, path: str | Path, overwrite: bool) -> None:
    """Raise an error for targets that cannot be replaced."""
    try:
        mode = os.stat(target).st_mode
    except OSError:  # missing; other errors are reported when the file is opened
        return
    if stat.S_ISDIR(mode):
        raise WriteError(f"Cannot write {path}: it is a folder. Name a file.")
    if not stat.S_ISREG(mode):
        raise WriteError(f"Cannot write {path}: it is not a regular file. Name another path.")
    if not overwrite:
        raise _exists(path)


def _exists(path: str | Path) -> FileExistsError:
    return FileExistsError(f"{path} exists; choose another name or allow overwriting")


class _RawFile(io.FileIO):
    """File that stores the first error of a write."""

    error: OSError | None = None

    def write(self, content) -> int:
        try:
            return os.write(self.fileno(), content)
        except OSError as error:
            self.error = self.error or error
            raise


def _open_temporary(folder: str) -> tuple[_RawFile, str | None]:
    """Open a temporary file; its path is None if it has no name."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not supported here; any other error occurs again below
            return _RawFile(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666), "wb"), None
    temporary = _temporary_name(folder)
    raw = _RawFile(temporary, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o666))
    if fcntl is not None:
        with contextlib.suppress(OSError):  # some network file systems have no locks; only the age is checked there
            fcntl.flock(raw.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    return raw, temporary


@contextlib.contextmanager
def _folder_lock(folder: str) -> Iterator[None]:
    """Lock a folder, if the file system supports it."""
    if fcntl is None:
        yield
        return
    fileno = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fileno)


@contextlib.contextmanager
def _locked(path: str | Path, flags: int) -> Iterator[int]:
    """Open a file that no other process appends to meanwhile, as far as the file system has locks."""
    fileno = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(fileno, fcntl.LOCK_EX)
        yield fileno
    finally:
        os.close(fileno)


def _cut_part_of_line(fileno: int, block: int = 4096) -> int:
    """Truncate a file after its last newline; returns its size."""
    size = end = os.fstat(fileno).st_size
    while end:
        start = max(0, end - block)
        if newline := os.pread(fileno, end - start, start).rfind(b"\n") + 1:
            end = start + newline
            break
        end = start
    if end < size:
        os.ftruncate(fileno, end)
    return end


def _temporary_name(folder: str) -> str:
    return os.path.join(folder, f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")


def _publish(fileno: int, temporary: str | None, target: str, path: str | Path, overwrite: bool) -> str | None:
    """Move a complete temporary file to its final name; return the path that remains to be removed."""
    folder = os.path.dirname(target)
    if temporary is None:
        temporary = _temporary_name(folder)
        folder_fd = os.open(folder, os.O_RDONLY)
        try:  # with the descriptor of a folder, `os.link` follows the symbolic link in /proc
            os.link(f"/proc/self/fd/{fileno}", temporary, src_dir_fd=folder_fd, follow_symlinks=True)
        finally:
            os.close(folder_fd)
    try:
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_new(temporary, target, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)
    return None


def _rename_new(temporary: str, target: str, path: str | Path) -> None:
    """Rename a file to a path that must not exist."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.exists(target):
            raise _exists(path) from None
        os.replace(temporary, target)
    else:
        os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    """Flush a folder, so that a new name survives a power loss, if the file system supports it."""
    with contextlib.suppress(OSError):
        fileno = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fileno)
        finally:
            os.close(fileno)


def _remove_stale(folder: str) -> None:
    """Remove temporary files and folders of killed processes: unchanged for an hour, and locked by no process."""
    now = time.time()
    if now - _last_cleaned.get(folder, -STALE_SECONDS) < STALE_SECONDS:
        return
    _last_cleaned[folder] = now
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)):
                continue
            with contextlib.suppress(OSError):
                if now - entry.stat(follow_symlinks=False).st_mtime >= STALE_SECONDS and not _is_locked(entry.path):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _is_locked(path: str) -> bool:
    if fcntl is None:
        return False
    fileno = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fileno, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system: only the age is checked
        return False
    finally:
        os.close(fileno)
    return False


def _write_error(error: OSError, path: str | Path) -> WriteError:
    """Create the one-line error for a failed write."""
    reason = _REASONS.get(error.errno)
    if reason is None:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a part of its path is a file. Name another folder"
        return WriteError(f"Cannot write {path}: {reason}")
    mount = _mount_point(os.path.dirname(os.path.realpath(path)))
    free = ""
    if error.errno in _FULL:
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(mount).free / 1e6:,.1f} MB free). Free some space or name another disk"
    return WriteError(f"Cannot write {path}: {reason} mounted at {mount}{free}")


def _mount_point(folder: str) -> str:
    """Return the mount point of the disk of a folder, which need not exist."""
    while not os.path.ismount(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder
