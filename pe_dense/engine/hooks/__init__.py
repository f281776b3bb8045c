"""Training hooks."""

from pe_dense.engine.hooks.checkpoint import StopHook
from pe_dense.engine.hooks.ema import EMAHook, ExponentialMovingAverage
from pe_dense.engine.hooks.logger import SkippedImagesHook
from pe_dense.engine.hooks.nan_loss import NaNLossHook
from pe_dense.engine.hooks.trackers import MLflowVisBackend, WandbVisBackend

__all__ = [
    "EMAHook",
    "ExponentialMovingAverage",
    "MLflowVisBackend",
    "NaNLossHook",
    "SkippedImagesHook",
    "StopHook",
    "WandbVisBackend",
]
