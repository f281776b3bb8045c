"""Simulate a full disk."""

import errno
import os


def fail_writes_after(monkeypatch, limit, code=errno.ENOSPC):
    """Make writes of :mod:`pe_dense.utils.atomic_write` fail after `limit` bytes in total."""
    write, written = os.write, 0

    def limited(fileno, content):
        nonlocal written
        written += len(content)
        if written > limit:
            raise OSError(code, os.strerror(code))
        return write(fileno, content)

    monkeypatch.setattr(os, "write", limited)
