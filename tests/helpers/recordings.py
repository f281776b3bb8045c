"""Tensors recorded from the published implementations (tests/golden, or the folder that PE_DENSE_GOLDEN names)."""

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

OWN_FOLDER = Path(__file__).parents[1] / "golden"
FOLDER = Path(os.environ.get("PE_DENSE_GOLDEN") or OWN_FOLDER)


def recordings(pattern: str, exclude: Sequence[str] = (), folder: Path = FOLDER) -> list[Path]:
    """Files of a kind, such as 'tower_*.npz', without those that match a pattern of ``exclude``.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: if the folder is missing or unreadable, contains no
            recording at all, or is the repository's own and contains none of this kind.
    """
    names = sorted(os.listdir(folder))
    found = [n for n in names if fnmatch(n, pattern) and not any(fnmatch(n, other) for other in exclude)]
    if not any(name.endswith(".npz") for name in names):
        raise FileNotFoundError(f"{folder} contains no recording (.npz)")
    if not found and folder == OWN_FOLDER:
        raise FileNotFoundError(f"{folder} contains no recording {pattern}")
    return [folder / name for name in found]


def by_recording(pattern: str, exclude: Sequence[str] = (), folder: Path = FOLDER) -> pytest.MarkDecorator:
    """Run a test for each recording of a kind, given to it as ``path``.

    Where :func:`recordings` raises an error, the test runs with a path that does not exist, so that it fails: pytest
    would skip a test without parameters. It is skipped only if a folder of other recordings contains none of this kind.
    """
    try:
        paths = recordings(pattern, exclude, folder)
    except OSError as error:
        return pytest.mark.parametrize("path", [pytest.param(folder / pattern, id=str(error))])
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


class Recording:
    """One file: its config, state dict and arrays, the latter as float32 tensors where they are floating."""

    def __init__(self, path: Path):
        self._arrays = np.load(path)
        self.names = self._arrays.files
        self.config = json.loads(str(self._arrays["config"])) if "config" in self.names else None

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = torch.from_numpy(np.asarray(self._arrays[name]))
        return tensor.float() if tensor.dtype == torch.float16 else tensor

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def is_half(self, name: str) -> bool:
        """Whether an array is stored as float16: inputs and weights are, outputs are not."""
        return self._arrays[name].dtype == np.float16

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return {name.removeprefix("state/"): self[name] for name in self.names if name.startswith("state/")}

    def subset(self, prefix: str) -> dict[str, torch.Tensor]:
        """Arrays under a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self.names if name.startswith(prefix)}
