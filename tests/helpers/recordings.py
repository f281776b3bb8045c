"""Tensors recorded from the published implementations (tests/golden, or the folder that PE_DENSE_GOLDEN names)."""

import json
import os
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(os.environ.get("PE_DENSE_GOLDEN") or Path(__file__).parents[1] / "golden")


def recordings(pattern: str) -> list[Path]:
    """Files of a kind, such as 'tower_*.npz'."""
    return sorted(FOLDER.glob(pattern))


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
