"""Depth maps drawn beside images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample

from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.utils.image import write_png
from pe_dense.visualization.drawing import beside, with_bar

_COLOURS = "magma_r"  # the near is bright
_PERCENTILES = (1, 99)  # of an image's depth, at the ends of the colours


@INFERENCERS.register_module()
class DepthPredictor(ProbePredictor):
    """Draws depth in colours.

    Beside the picture, ``<name>_depth.png`` holds millimetres in 16 bits, and the JSON file a summary in metres.
    """

    endings = ("", "_depth")

    def write(self, stem: Path, pixels: np.ndarray, sample: SegDataSample) -> dict:
        """As of the base class."""
        import matplotlib

        depth = sample.pred_depth_map.data[0].numpy()  # (H, W), metres
        colours = np.rint(255 * matplotlib.colormaps[_COLOURS](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
        near, far = np.percentile(depth, _PERCENTILES)
        share = np.clip((depth - near) / max(far - near, 1e-6), 0, 1)
        drawn = colours[np.rint(255 * share).astype(int)]
        write_png(f"{stem}.png", with_bar(beside(pixels, drawn), colours, f"{near:.2f} m", f"{far:.2f} m"))
        millimetres = np.clip(np.rint(1000 * depth), 0, np.iinfo(np.uint16).max).astype(np.uint16)
        write_png(f"{stem}_depth.png", millimetres)
        return dict(depth=dict(min=float(depth.min()), median=float(np.median(depth)), max=float(depth.max())))
