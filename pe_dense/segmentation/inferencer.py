"""Inferencer for semantic segmentation probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample

from pe_dense.probing.inferencer import ProbePredictor
from pe_dense.registry import INFERENCERS
from pe_dense.utils.image import write_png
from pe_dense.visualization.drawing import add_legend, hstack

_OPACITY = 0.6


@INFERENCERS.register_module()
class SegmentationPredictor(ProbePredictor):
    """Semantic segmentation inferencer that draws classes over the image, with a legend of the classes present.

    In addition, ``<name>_labels.png`` contains the label of each pixel (16 bits for more than 256 classes), and the
    JSON file the share of pixels of each class.
    """

    endings = ("", "_labels")

    def write(self, stem: Path, pixels: np.ndarray, sample: SegDataSample) -> dict:
        """See :meth:`Predictor.write`."""
        labels = sample.pred_sem_seg.data[0].numpy()  # (H, W)
        names, palette = self.metainfo["classes"], np.asarray(self.metainfo["palette"], np.uint8)
        present, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts)
        gray = pixels.mean(axis=2, keepdims=True, dtype=np.float32)  # gray preserves class colors
        drawn = gray + np.float32(_OPACITY) * (palette[labels] - gray)
        entries = [(names[label], tuple(map(int, palette[label]))) for label in present[order]]
        write_png(f"{stem}.png", add_legend(hstack(pixels, np.rint(drawn).astype(np.uint8)), entries))
        write_png(f"{stem}_labels.png", labels.astype(np.uint8 if len(names) <= 256 else np.uint16))
        shares = counts[order] / labels.size
        found = zip(present[order], shares, strict=True)
        return dict(classes=[dict(name=names[label], label=int(label), share=float(share)) for label, share in found])
