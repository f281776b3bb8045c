"""Predict on images that are larger than a model's input, tile by tile, with memory bounded by the tile."""

from pe_dense.tiling.grid import Tiling
from pe_dense.tiling.predict import predict_tiles
from pe_dense.tiling.readers import open_windows

__all__ = ["Tiling", "open_windows", "predict_tiles"]
