"""Inferencer for depth probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample

from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.runtime.results import DepthMap
from pe_dense.utils.image import write_png
from pe_dense.visualization.results import draw_depth

_ROWS = 512  # converted at a time


@INFERENCERS.register_module()
class DepthPredictor(ProbePredictor):
    """Depth inferencer that draws color-coded depth next to the image.

    In addition, ``<name>_depth.png`` contains depth in millimeters (16 bits), and the JSON file a summary in meters.
    """

    endings = ("", "_depth")
    tiles = "maps"
    map_dtype = np.float32

    def result(self, sample: SegDataSample) -> DepthMap:
        """See :meth:`Predictor.result`."""
        return DepthMap(sample.pred_depth_map.data[0].numpy())

    def tile_scores(self, sample: SegDataSample) -> np.ndarray:
        """See :meth:`Predictor.tile_scores`."""
        return sample.pred_depth_map.data.float().cpu().numpy()

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.decide`."""
        return scores[0]

    def map_result(self, values: np.ndarray) -> DepthMap:
        """See :meth:`Predictor.map_result`."""
        return DepthMap(values)

    def write(self, stem: Path, pixels: np.ndarray, result: DepthMap) -> dict:
        """See :meth:`Predictor.write`."""
        write_png(f"{stem}.png", draw_depth(result, pixels), reuse=True)
        write_png(f"{stem}_depth.png", millimeters(result.depth))
        return result.to_json()


def millimeters(depth: np.ndarray) -> np.ndarray:
    """Convert depth (H, W) in meters to (H, W) uint16 in millimeters; 65.5 m and more are the highest value."""
    stored = np.empty(depth.shape, np.uint16)
    for start in range(0, len(depth), _ROWS):
        part = np.rint(1000 * np.asarray(depth[start : start + _ROWS]))
        stored[start : start + _ROWS] = np.clip(part, 0, np.iinfo(np.uint16).max)
    return stored
