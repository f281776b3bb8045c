"""Reading files that come from outside."""

from pe_dense.io.checkpoint import CheckpointError, read_checkpoint

__all__ = ["CheckpointError", "read_checkpoint"]
