"""Reading files that come from outside."""

from pe_dense.io.checkpoint import CheckpointError, read_checkpoint
from pe_dense.io.match import require_match

__all__ = ["CheckpointError", "read_checkpoint", "require_match"]
