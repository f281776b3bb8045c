"""User errors, reported as one line without a traceback."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pe_dense.utils.memory import keep_freed_memory

INTERRUPTED = 130  # exit status after Ctrl-C

# System errors that a user can fix, with what to do about them. Any other one keeps its traceback.
_REMEDIES = {
    errno.EACCES: "change the permissions of that path, or name another one",
    errno.EPERM: "change the permissions of that path, or name another one",
    errno.EROFS: "name a folder on a writable file system",
    errno.ENOSPC: "free some disk space, or name a folder on another disk",
    errno.EDQUOT: "free some of the disk quota, or name a folder on another disk",
    errno.ENOENT: "check the path",
    errno.EEXIST: "name another path",
    errno.ENOTDIR: "a part of that path is a file: name a folder",
    errno.EISDIR: "that path is a folder: name a file",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "a symbolic link points to itself: check the path",
    errno.EINVAL: "check the path",
    errno.EFBIG: "name a folder on a file system that takes larger files",
    errno.EIO: "the disk or network share failed: check it, or name a path elsewhere",
    errno.ESTALE: "the network share was disconnected: mount it again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`)",
    errno.ENFILE: "raise the system's limit of open files",
}


class UserError(Exception):
    """An error of the user's input or environment: an option, a config, a file. The message says what to change."""


class InputError(UserError, ValueError):
    """An argument, a value in a config or the content of a file is invalid."""


class ConfigError(InputError):
    """A config, an option or the data that they refer to is invalid."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report user errors as one line, ``error: ...``, with exit status 2.

    User errors are :class:`UserError`; ``FileNotFoundError`` and similar exceptions that are raised with a message; and
    system errors about a path (no permission, full disk, ...), which are printed with a remedy. Every other exception
    is a bug and keeps its traceback. ``PE_DENSE_TRACEBACK=1`` shows all tracebacks.

    Standard output is configured, too: characters that its encoding cannot represent are escaped, and the program
    continues if the reader of its output (``| head``) exits early.
    """
    _prepare_output()
    try:
        yield
    except (UserError, OSError, UnicodeEncodeError, ImportError) as error:
        message = user_message(error)
        if message is None or os.environ.get("PE_DENSE_TRACEBACK"):
            raise
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 - this is the program's last output
        raise SystemExit(2) from None


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run the main function of a tool and exit with the status that it returns, or 130 after Ctrl-C, as in a shell.

    Ctrl-C ends in one line, ``interrupted``. A tool with more to say, such as what it has written until then, raises
    ``KeyboardInterrupt`` with that message. :func:`one_line_errors` lets it pass.

    Args:
        main: parses the arguments and runs the tool.
    """
    keep_freed_memory()
    try:
        status = main()
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}" if str(error) else "interrupted", file=sys.stderr)  # noqa: T201 - the last output
        status = INTERRUPTED
    raise SystemExit(status)


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Convert exceptions of libraries, raised while objects are built from a config, to user errors.

    Exceptions raised in this package's own code are bugs and are not converted.

    Args:
        what: beginning of the message.

    Raises:
        ConfigError: for exceptions of libraries, except system errors and out-of-memory errors.
    """
    try:
        yield
    except (UserError, OSError, MemoryError, ImportError, torch_memory_error()):
        raise
    except Exception as error:
        module = _raised_in(error)
        if module.partition(".")[0] == __name__.partition(".")[0]:
            raise
        raise ConfigError(
            f"{what}: {type(error).__name__}: {_one_line(error)[:500]} (in {module}; PE_DENSE_TRACEBACK=1 shows where)"
        ) from error


def torch_memory_error() -> type[BaseException]:
    """Return PyTorch's out-of-memory error, without importing PyTorch."""
    torch = sys.modules.get("torch")
    return MemoryError if torch is None else torch.OutOfMemoryError


def _raised_in(error: BaseException) -> str:
    """Return the name of the module whose code raised an exception."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "")


def user_message(error: BaseException) -> str | None:
    """Return the one-line message of a user error; None if the error is a bug.

    Args:
        error: any exception.
    """
    if isinstance(error, UserError):
        return _one_line(error)
    if isinstance(error, UnicodeEncodeError) and error.encoding.lower() not in ("utf-8", "utf8"):
        return f"{error.object!a} has characters that the encoding {error.encoding} cannot represent: set PYTHONUTF8=1"
    if isinstance(error, ImportError):
        return _missing_graphics_library(str(error))
    if not isinstance(error, OSError):
        return None
    if error.errno is None:  # raised with a message by this project or a library, not by the system
        return _one_line(error) or None
    if error.errno not in _REMEDIES:
        return None
    if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return None
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{name}{error.strerror}; {_REMEDIES[error.errno]}"


def _missing_graphics_library(message: str) -> str | None:
    """Return the remedy if OpenCV's GUI build is installed without its system libraries; pip may install both "
    "builds."""
    library = re.match(r"lib(GL|gthread|glib|SM|Xext|xcb)\b[^:]*(?=: cannot open shared object file)", message)
    return library and (
        f"OpenCV cannot be imported because {library[0]} is not installed: run `pip install --force-reinstall "
        "--no-deps opencv-python-headless`, or install that library (Debian, Ubuntu: apt install libgl1 libglib2.0-0)"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # PyTorch prepends the traceback of a data worker to the message.
    if any(line.startswith("Original Traceback") for line in lines):
        return re.sub(r"^[\w.]+: ", "", lines[-1])
    return " ".join(lines)


class _Output:
    """Text stream that discards output after its reader has closed the pipe."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self._closed_by_reader = False

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._run(self._stream.write, text, otherwise=len(text))

    def flush(self) -> None:
        self._run(self._stream.flush)

    def _run(self, method, *arguments, otherwise=None):
        if self._closed_by_reader:
            return otherwise
        try:
            return method(*arguments)
        except BrokenPipeError:
            self._closed_by_reader = True
            # The interpreter flushes the stream again at exit, which must not fail.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return otherwise


def _prepare_output() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stdout, _Output) and hasattr(sys.stdout, "reconfigure"):
        sys.stdout = _Output(sys.stdout)
