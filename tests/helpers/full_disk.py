"""A disk that is full after a number of bytes."""

import errno
import os


def fail_writes_after(monkeypatch, limit, code=errno.ENOSPC):
    """Let all writes of :mod:`pe_dense.utils.atomic_write` together take `limit` bytes and then fail."""
    write, written = os.write, 0

    def limited(fileno, content):
        nonlocal written
        written += len(content)
        if written > limit:
            raise OSError(code, os.strerror(code))
        return write(fileno, content)

    monkeypatch.setattr(os, "write", limited)
