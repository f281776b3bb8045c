"""Checkpoint reading, state dicts, atomic writes, image and video I/O."""

from pe_dense.utils.checkpoint import CheckpointError, read_checkpoint
from pe_dense.utils.state_dict import require_match

__all__ = ["CheckpointError", "read_checkpoint", "require_match"]
