"""Check a folder for output before long work begins."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pe_dense.utils.errors import ConfigError

_LEAST_SPACE = 100_000  # bytes; less holds no picture


def check_output_folder(path: str | Path, option: str) -> None:
    """Make sure that files can be written to a folder, which need not exist yet. Nothing is created.

    Args:
        path: the folder.
        option: that names it, for errors.

    Raises:
        ConfigError: if the path or a part of it is a file, is not writable, or its disk is full.
        OSError: for a path that the file system does not take (too long, ...).
    """
    path = Path(path)
    if not str(path).strip():
        raise ConfigError(f"{option} is empty: name a folder")
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        what = "is a file" if existing == path else f"can't be a folder, {existing} is a file"
        raise ConfigError(f"{option} {path} {what}: name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {path}: no permission to write to {existing.absolute()}; name another folder, or change the "
            "permissions of that one"
        )
    if shutil.disk_usage(existing).free < _LEAST_SPACE:
        raise ConfigError(
            f"{option} {path}: no space left on the disk of {existing.absolute()}; free some, or name a folder on "
            "another disk"
        )
