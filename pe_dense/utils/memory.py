"""Main memory of processes that compute on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_MIB = 2**20
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors, up to 256 MiB, instead of returning it at once.

    Activations of tens of megabytes are otherwise taken from the system again for every layer, in pages that are
    cleared one by one: a third of the time of a small head on a CPU (benchmarks/predict.py). Settings of the user, in
    environment variables of glibc, are left as they are.

    Returns:
        whether it did so: on Linux with glibc alone.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 32 * _MIB)) and bool(mallopt(_TRIM_THRESHOLD, 256 * _MIB))
