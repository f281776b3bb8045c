"""Writing released checkpoints in this project's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pe_dense.engine.runner import model_state
from pe_dense.io import read_checkpoint


def convert_checkpoint(config: Config, source: str, destination: Path) -> int:
    """Map a checkpoint to a config's model and write it; nothing is computed, so it takes no memory but the file's.

    Args:
        config: of the model.
        source: path or ``hf://`` name.
        destination: a file that does not exist yet.

    Returns:
        the number of tensors written.

    Raises:
        FileExistsError: if the destination exists.
        CheckpointError: if the file does not fit the model.
    """
    if destination.exists():
        raise FileExistsError(f"{destination} exists; choose another name")
    init_default_scope(config.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = MODELS.build(config.model)
    state = model_state(model, read_checkpoint(source), source)
    destination.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict={key: value.contiguous() for key, value in state.items()}), destination)
    return len(state)
