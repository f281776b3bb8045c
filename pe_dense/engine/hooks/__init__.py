"""Training hooks."""

from pe_dense.engine.hooks.ema import EMAHook, ExponentialMovingAverage
from pe_dense.engine.hooks.nan_loss import NaNLossHook
from pe_dense.engine.hooks.skipped_images import SkippedImagesHook
from pe_dense.engine.hooks.stop import StopHook

__all__ = ["EMAHook", "ExponentialMovingAverage", "NaNLossHook", "SkippedImagesHook", "StopHook"]
