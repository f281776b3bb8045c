"""Inferencer for depth probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample

from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.utils.image import write_png
from pe_dense.visualization.drawing import add_colorbar, hstack

_COLORS = "magma_r"  # near pixels are bright
_PERCENTILES = (1, 99)  # percentiles of depth at the ends of the color map


@INFERENCERS.register_module()
class DepthPredictor(ProbePredictor):
    """Depth inferencer that draws color-coded depth next to the image.

    In addition, ``<name>_depth.png`` contains depth in millimeters (16 bits), and the JSON file a summary in meters.
    """

    endings = ("", "_depth")

    def write(self, stem: Path, pixels: np.ndarray, sample: SegDataSample) -> dict:
        """See :meth:`Predictor.write`."""
        import matplotlib

        depth = sample.pred_depth_map.data[0].numpy()  # (H, W), meters
        colors = np.rint(255 * matplotlib.colormaps[_COLORS](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
        near, far = np.percentile(depth, _PERCENTILES)
        share = np.clip((depth - near) / max(far - near, 1e-6), 0, 1)
        drawn = colors[np.rint(255 * share).astype(int)]
        write_png(f"{stem}.png", add_colorbar(hstack(pixels, drawn), colors, f"{near:.2f} m", f"{far:.2f} m"))
        millimeters = np.clip(np.rint(1000 * depth), 0, np.iinfo(np.uint16).max).astype(np.uint16)
        write_png(f"{stem}_depth.png", millimeters)
        return dict(depth=dict(min=float(depth.min()), median=float(np.median(depth)), max=float(depth.max())))
