"""Taking a tower out of a training run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pe_dense.io import read_checkpoint
from pe_dense.tower.checkpoint import save_state, tower_state
from pe_dense.tower.tower import PETower
from pe_dense.tower.variants import VARIANTS


def export_tower(source: str | Path, path: str | Path, *, fold: bool = False, overwrite: bool = False) -> list[str]:
    """Write a run's tower, and nothing else of it, in the published format.

    Args:
        source: checkpoint or work dir (its last checkpoint) of a model around one tower.
        path: as of :func:`~pe_dense.tower.save_state`.
        fold: see :func:`fold_layer_scale`.
        overwrite: replace a file that exists.

    Returns:
        names of the published towers that the file fits.

    Raises:
        CheckpointError, FileNotFoundError: for a checkpoint that is missing or holds no tower.
        FileExistsError, ValueError: as :func:`~pe_dense.tower.save_state`; ValueError for folding what is not there.
    """
    state = tower_state(read_checkpoint(source), source)
    if fold:
        state = fold_layer_scale(state)
    save_state(state, path, overwrite=overwrite)
    return fitting_names(state)


def fold_layer_scale(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move LayerScale into the projections before it, which changes features by rounding only.

    Args:
        state: of a tower with LayerScale, in the published names.

    Returns:
        the state of a tower without.

    Raises:
        ValueError: if there is no LayerScale.
    """
    state = dict(state)
    scales = [key for key in state if key.rpartition(".")[2] == "gamma"]
    if not scales:
        raise ValueError("The tower has no LayerScale to fold")
    for key in scales:
        block, scale, _ = key.rsplit(".", 2)
        projection = f"{block}.{dict(ls_1='attn.out_proj', ls_2='mlp.c_proj')[scale]}"
        gamma = state.pop(key)
        state[f"{projection}.weight"] = gamma[:, None] * state[f"{projection}.weight"]
        state[f"{projection}.bias"] = gamma * state[f"{projection}.bias"]
    return state


def fitting_names(state: dict[str, Tensor]) -> list[str]:
    """Published towers with exactly these parameters, in these shapes."""
    shapes = {key: value.shape for key, value in state.items()}
    width, layers = len(state["conv1.weight"]), sum(key.endswith(".ln_1.weight") for key in state)
    names = []
    for name, variant in VARIANTS.items():
        if (variant.width, variant.layers) != (width, layers):
            continue
        with torch.device("meta"):
            tower = PETower(name)
        if {key: value.shape for key, value in tower.state_dict().items()} == shapes:
            names.append(name)
    return names
