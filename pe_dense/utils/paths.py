"""Paths that users name."""

from __future__ import annotations

import os
from pathlib import Path

from pe_dense.utils.errors import InputError


def check_path(path: str | os.PathLike) -> Path:
    """Return a path; names of the network are refused.

    Raises:
        InputError: for a URL.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{os.fspath(path)} is a URL: download the image and pass its path")
    return Path(path)
