"""Checkpoint reading, state dicts, atomic writes, image and video I/O."""

import importlib

_MODULES = dict(
    CheckpointError="pe_dense.utils.checkpoint",
    read_checkpoint="pe_dense.utils.checkpoint",
    match_state_dict="pe_dense.utils.state_dict",
)
__all__ = ["CheckpointError", "read_checkpoint", "match_state_dict"]


def __getattr__(name: str):
    """Import public names on first use, so that modules without PyTorch stay quick to import."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
