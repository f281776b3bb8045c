"""Errors of depth."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.logging import print_log
from mmseg.evaluation import DepthMetric as _DepthMetric

from pe_dense.registry import METRICS
from pe_dense.utils.errors import InputError


@METRICS.register_module()
class DepthMetric(_DepthMetric):
    """As mmseg's: errors of each image, averaged over images.

    But only errors are collected, not all pixels of all images, and images without a pixel to evaluate are counted
    and left out (in mmseg's all errors would become NaN).

    Args:
        options: of mmseg's class: ``min_depth_eval``, ``max_depth_eval``, ``crop_type`` ...
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Errors of some images; None for one without a pixel to evaluate."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        self.results[before:] = [
            self._calc_all_metrics(truth, depth) if len(truth) else None for truth, depth in self.results[before:]
        ]

    def compute_metrics(self, results: Sequence[dict | None]) -> dict[str, float]:
        """Average images.

        Returns:
            ``rmse`` in meters, ``rmse_log``, ``abs_rel``, ``sq_rel``, ``log10``, ``silog`` and the shares ``d1``,
            ``d2``, ``d3`` of pixels that are off by less than a factor of 1.25, 1.25^2, 1.25^3.

        Raises:
            ValueError: if no image has a pixel to evaluate.
        """
        if self.format_only:
            return {}
        known = [errors for errors in results if errors is not None]
        if not known:
            raise InputError(
                f"None of {len(results)} images has a pixel with a depth in "
                f"{self.min_depth_eval}..{self.max_depth_eval} m to evaluate"
            )
        if len(known) < len(results):
            print_log(f"{len(results) - len(known)} of {len(results)} images have no depth to evaluate", "current")
        return {name: sum(errors[name] for errors in known) / len(known) for name in self.metrics}
