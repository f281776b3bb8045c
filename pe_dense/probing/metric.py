"""A metric of each probe of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as MMENGINE_METRICS

from pe_dense.engine.layer_report import best_row
from pe_dense.registry import METRICS


@METRICS.register_module()
class LayerMetric(BaseMetric):
    """Evaluates each probe of a :class:`~pe_dense.probing.LayerSweep` as if it were alone.

    Args:
        metric: config of the metric.
        key: its number that tells which probe is best.
        higher_is_better: of that number.

    Attributes:
        rows: after an evaluation, one dict per probe: ``layer``, ``setting`` and the metric's numbers.
    """

    def __init__(self, metric: dict, key: str, higher_is_better: bool):
        super().__init__()
        self.metric = metric
        self.key = key
        self.higher_is_better = higher_is_better
        self.rows: list[dict] = []
        self._metrics: dict[str, BaseMetric] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Hand each probe's prediction to its own metric."""
        for sample in data_samples:
            for name, found in sample["by_probe"].items():
                if name not in self._metrics:
                    self._metrics[name] = MMENGINE_METRICS.build(deepcopy(self.metric))
                    self._metrics[name].dataset_meta = self.dataset_meta
                self._metrics[name].process(data_batch, [found.to_dict()])

    def evaluate(self, size: int) -> dict[str, float]:
        """Evaluate all probes; images that were seen twice to fill processes up count once.

        Args:
            size: number of images.

        Returns:
            ``<key>/layer_<layer>-<setting>`` of each probe, ``best_layer``, and ``<key>`` of the best.
        """
        self.rows, numbers = [], {}
        for name, metric in self._metrics.items():
            layer, setting = map(int, name.split("-"))
            found = metric.evaluate(size)
            self.rows.append(dict(layer=layer, setting=setting, **found))
            numbers[f"{self.key}/layer_{name}"] = found[self.key]
        best = best_row(self.rows, self.key, self.higher_is_better)
        return numbers | (dict(best_layer=best["layer"]) | {self.key: best[self.key]} if best else {})

    def compute_metrics(self, results: list) -> dict:
        """Not in use: the probes' metrics compute."""
        raise NotImplementedError
