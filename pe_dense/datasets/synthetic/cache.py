"""Content-addressed cache of generated data sets, written atomically."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from pe_dense.utils.atomic_write import atomic_folder
from pe_dense.utils.errors import InputError

_SECONDS_BETWEEN_REPORTS = 5.0


def write_once(root: str | os.PathLike, spec: dict, *, kind: str, write: Callable[[Path, dict], None]) -> Path:
    """Create a folder of generated data, or reuse it if it exists.

    The data are written to ``root`` atomically, see :func:`~pe_dense.utils.atomic_write.atomic_folder`. If several
    processes make the same data at the same time, the first one to finish is used.

    Args:
        root: folder to create; may exist if empty.
        spec: arguments that determine the data, as JSON types; stored in ``root`` as ``<kind>.json``.
        kind: name of the data.
        write: called with an empty folder and ``spec`` to write the data.

    Returns:
        The resolved root.

    Raises:
        FileExistsError: if ``root`` contains anything else, such as data of another ``spec``.
        WriteError: if writing fails, such as on a full disk or in a read-only folder.
    """
    root = Path(root).resolve()
    if _is_generated(root, spec, kind):
        return root
    try:
        with atomic_folder(root) as draft:
            write(draft, spec)
            (draft / f"{kind}.json").write_text(json.dumps(spec, indent=2) + "\n")
    except OSError:
        if not _is_generated(root, spec, kind):
            raise
        print_log(f"{kind}: another process made {root}, using that", logger="current")
    return root


def _is_generated(root: Path, spec: dict, kind: str) -> bool:
    """Return whether ``root`` contains the data; raise FileExistsError if it contains anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / f"{kind}.json").read_text())
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f"{root} exists and is not a {kind} folder ({kind}.json: {error}); choose another data_root"
        ) from error
    if found != spec:
        raise FileExistsError(
            f"{root} was made from {found}, asked for is {spec}; delete it or choose another data_root"
        )
    return True


def check_lowest(given: dict[str, int], lowest: dict[str, int]) -> None:
    """Raise a ``ValueError`` for the first argument that is too low."""
    for name, value in given.items():
        if value < lowest[name]:
            raise InputError(f"{name} is {value}, must be at least {lowest[name]}")


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or BGR (H, W, 3), uint8 or uint16."""
    written, code = cv2.imencode(".png", pixels)
    if not written:
        raise InputError(f"cannot encode {pixels.shape} {pixels.dtype} as {path}")
    # Written by Python, whose errors name the cause (a full disk), where cv2.imwrite only returns False.
    path.write_bytes(code.tobytes())


class Progress:
    """Log the progress of the generation every few seconds and at its end."""

    def __init__(self, total: int, *, kind: str, unit: str) -> None:
        self.total = total
        self.kind, self.unit = kind, unit
        self.done = 0
        self.start = self.last_report = time.monotonic()

    def advance(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.done < self.total and now - self.last_report < _SECONDS_BETWEEN_REPORTS:
            return
        self.last_report = now
        left = (now - self.start) / self.done * (self.total - self.done)
        print_log(
            f"{self.kind}: {self.done}/{self.total} {self.unit}, {left:.0f} s left",
            logger="current",
            level=logging.INFO,
        )
