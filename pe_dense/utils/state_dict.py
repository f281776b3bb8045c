"""Strict comparison of state dicts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pe_dense.utils.checkpoint import CheckpointError


def require_match(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, target: str) -> None:
    """Make sure that a state dict has exactly the keys and shapes of a model.

    Args:
        wanted: the model's state dict.
        given: the file's.
        source, target: how the message names file and model.

    Raises:
        CheckpointError: listing keys that are missing, left over or of another shape, both shapes printed.
    """
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    others = {key: tuple(value.shape) for key, value in given.items()}
    problems = {
        "missing in the file": sorted(shapes.keys() - others.keys()),
        "unknown to the model": sorted(others.keys() - shapes.keys()),
        "of another shape": [
            f"{key} {others[key]} for {shape}" for key, shape in shapes.items() if others.get(key, shape) != shape
        ],
    }
    if any(problems.values()):
        told = [
            f"{len(keys)} {what}: {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}"
            for what, keys in problems.items()
            if keys
        ]
        raise CheckpointError(f"{source} does not fit {target}: " + "; ".join(told))
