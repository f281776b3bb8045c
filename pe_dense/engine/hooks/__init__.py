"""Training hooks."""

from pe_dense.engine.hooks.checkpoint import StopHook
from pe_dense.engine.hooks.ema import EMAHook, ExponentialMovingAverage
from pe_dense.engine.hooks.nan_loss import NaNLossHook
from pe_dense.engine.hooks.skipped_images import SkippedImagesHook

__all__ = ["EMAHook", "ExponentialMovingAverage", "NaNLossHook", "SkippedImagesHook", "StopHook"]
