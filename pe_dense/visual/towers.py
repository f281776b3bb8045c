"""Towers out of whatever holds one: published files, detectors, aligned students, probes."""

from __future__ import annotations

import ast
from pathlib import Path

import torch

from pe_dense.io import CheckpointError, read_checkpoint
from pe_dense.registry import MODELS
from pe_dense.tower import VARIANTS, PETower, load_tower, load_weights

RANDOM = "random"
_KINDS = ("pe_dense.PETower", "pe_dense.FrozenTower")


def open_tower(arch: str | None, weights: str | Path | None = None, *, device: str | torch.device = "cpu") -> PETower:
    """A tower with its weights.

    Args:
        arch: name of a published tower. None where the file tells its own: checkpoints of this project's runs do, and
            their tower is built as it was trained, with its windows and patches.
        weights: path of a file or of a run's folder, or ``hf://`` name; 'random' for trying things out; the
            published weights of ``arch`` by default.
        device: where it goes.

    Returns:
        the tower, in evaluation mode.

    Raises:
        ValueError: if neither names a tower, or both do and differ.
        CheckpointError, FileNotFoundError: as :func:`~pe_dense.tower.load_tower`.
    """
    if weights is None or weights == RANDOM:
        if arch is None:
            raise ValueError("no tower is named: give --arch, or --weights with a checkpoint of a run")
        if weights is None:
            return load_tower(arch, device=device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PETower(arch).to(device).eval()
    checkpoint = read_checkpoint(weights)
    backbone = trained_backbone(checkpoint)
    if backbone is None:
        if arch is None:
            raise ValueError(f"{weights} does not tell which tower it holds: name it with --arch")
        return load_tower(arch, weights, device=device)
    if arch not in (None, backbone["arch"]):
        raise ValueError(f"{weights} holds a tower of {backbone['arch']}, not {arch}: leave --arch out")
    return _build(backbone, checkpoint, weights).to(device).eval()


def choose_device(name: str | None) -> torch.device:
    """The device of that name; a GPU where there is one by default.

    Raises:
        ValueError: if it can't be used here.
    """
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device} can't be used here ({reason}): name another, such as cpu") from error


def title_of(tower: PETower, weights: str | None) -> str:
    """What pictures call a tower: its published name or else its size, and where other weights come from."""
    name = tower.name if tower.name in VARIANTS else f"{tower.num_layers} blocks, {tower.out_channels} channels"
    return name if weights is None else f"{name} ({'/'.join(Path(weights).parts[-2:])})"


def trained_backbone(checkpoint) -> dict | None:
    """The config of the tower in a checkpoint of a run; None where there is no config of one.

    Nothing of the file is executed: a checkpoint may come from anywhere.
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    text = meta.get("cfg") if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return None
    try:
        assigned = {node.targets[0].id: node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)}
        backbone = _literal(assigned["model"])["backbone"]
    except (SyntaxError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return backbone if isinstance(backbone, dict) and backbone.get("type") in _KINDS else None


def _literal(node: ast.expr):
    """The value of a literal in which dicts may be written as calls, ``dict(a=1)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def _build(backbone: dict, checkpoint: dict, source: str | Path) -> PETower:
    """Build a run's tower; a frozen one's weights are not in the file, but in the one that its config names."""
    if backbone["type"] == "pe_dense.PETower":
        options = {name: value for name, value in backbone.items() if name not in ("type", "init_cfg")}
        tower = PETower(**options)
        load_weights(tower, source)
        return tower
    frozen = MODELS.build({**backbone, "dtype": "float32"})
    prefix = "backbone."
    state = checkpoint.get("state_dict") or {}
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not part:
        raise CheckpointError(f"{source} has no {prefix}* in its state_dict, though its config has a frozen tower")
    frozen.load_state_dict(part)
    return frozen.tower
