"""Training hooks."""

from pe_dense.engine.hooks.nan_loss import FiniteLossHook
from pe_dense.engine.hooks.skipped_images import SkippedImagesHook

__all__ = ["FiniteLossHook", "SkippedImagesHook"]
