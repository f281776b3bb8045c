"""Depth estimation metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import DepthMetric as _DepthMetric

from pe_dense.registry import METRICS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import write_png


@METRICS.register_module()
class DepthMetric(_DepthMetric):
    """mmseg's ``DepthMetric``: errors of each image, averaged over images.

    Unlike mmseg, it stores only the errors instead of all pixels, and skips and counts images without valid pixels, for
    which all results of mmseg would become NaN.

    Args:
        options: arguments of mmseg's ``DepthMetric``: ``min_depth_eval``, ``max_depth_eval``, ``crop_type`` ...
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compute the errors of each image of a batch (None without valid pixels), and write its depth if
        ``output_dir`` is set: 16-bit PNG, in meters times ``depth_scale_factor``.
        """
        before = len(self.results)
        folder, self.output_dir = self.output_dir, None  # on a full disk, mmseg's method goes on without an error
        try:
            super().process(data_batch, data_samples)
        finally:
            self.output_dir = folder
        for sample in data_samples if folder is not None else ():
            depth = sample["pred_depth_map"]["data"].squeeze().cpu().numpy() * self.depth_scale_factor
            write_png(Path(folder) / f"{Path(sample['img_path']).stem}.png", depth.astype(np.uint16))
        self.results[before:] = [
            self._calc_all_metrics(truth, depth) if len(truth) else None for truth, depth in self.results[before:]
        ]

    def compute_metrics(self, results: Sequence[dict | None]) -> dict[str, float]:
        """Average the errors over images.

        Returns:
            ``rmse`` in meters, ``rmse_log``, ``abs_rel``, ``sq_rel``, ``log10``, ``silog`` and the fractions ``d1``,
            ``d2``, ``d3`` of pixels with a ratio to the true depth below 1.25, 1.25^2, 1.25^3.

        Raises:
            ValueError: if no image has a valid pixel.
        """
        if self.format_only:
            return {}
        known = [errors for errors in results if errors is not None]
        if not known:
            raise InputError(
                f"none of {len(results)} images has a pixel with a depth in "
                f"{self.min_depth_eval}..{self.max_depth_eval} m to evaluate"
            )
        if len(known) < len(results):
            print_log(
                f"{len(results) - len(known)} of {len(results)} images have no valid depth and are skipped", "current"
            )
        return {name: sum(errors[name] for errors in known) / len(known) for name in self.metrics}
