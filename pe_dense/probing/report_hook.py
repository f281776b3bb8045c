"""Metric and hook of layer sweeps: tables and plots by layer, and the best probe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from mmengine.dist import master_only
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.runner import Runner

from pe_dense.engine.layer_report import best_row, write_layer_report
from pe_dense.probing.probe import take_probe, write_probe
from pe_dense.registry import HOOKS, METRICS
from pe_dense.utils.atomic_write import write_json


@METRICS.register_module()
class LayerMetric(BaseMetric):
    """Evaluate each probe of a :class:`~pe_dense.probing.LayerSweep` separately.

    Args:
        metric: config of the metric.
        key: name of the metric value that determines the best probe.
        higher_is_better: whether higher values of ``key`` are better.

    Attributes:
        rows: after an evaluation, one dict per probe: ``layer``, ``setting`` and the metric values.
    """

    def __init__(self, metric: dict, key: str, higher_is_better: bool):
        super().__init__()
        self.metric = metric
        self.key = key
        self.higher_is_better = higher_is_better
        self.rows: list[dict] = []
        self._metrics: dict[str, BaseMetric] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Process the predictions of each probe with its own metric."""
        for sample in data_samples:
            for name, found in sample["by_probe"].items():
                if name not in self._metrics:
                    self._metrics[name] = MMENGINE_METRICS.build(deepcopy(self.metric))
                    self._metrics[name].dataset_meta = self.dataset_meta
                self._metrics[name].process(data_batch, [found.to_dict()])

    def evaluate(self, size: int) -> dict[str, float]:
        """Evaluate all probes; images repeated by the distributed sampler are counted once.

        Args:
            size: number of images.

        Returns:
            ``<key>/layer_<layer>-<setting>`` of each probe, ``best_layer``, and ``<key>`` of the best probe.
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
        """Not used: values are computed by the metrics of the probes."""
        raise NotImplementedError


@HOOKS.register_module()
class SweepHook(Hook):
    """Write a table and a plot by layer after each validation, and save the best probe so far.

    Reports are written to ``layers_iter_<n>/layers.{csv,json,png}`` in the log folder of the run. ``best_probe.pth`` in
    the work dir can be loaded with the config of a single layer; ``best_by_probe.json`` in the same folder records the
    best validation of each probe, so that resumed runs continue from it.

    Args:
        title: title of the plot; the name of the backbone is appended.
        unit: unit of the metric.
        best_over_time: report the best validation so far of each probe instead of the last one.
    """

    priority = "LOW"  # after the metrics have been logged

    def __init__(self, title: str, unit: str = "", best_over_time: bool = False):
        self.title = title
        self.unit = unit
        self.best_over_time = best_over_time

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write the report and save the best probe."""
        metric = _layer_metric(runner.val_loop.evaluator)
        now = [dict(row, iter=runner.iter) for row in _with_settings(runner, metric.rows)]
        best = self._keep_best(runner, metric, now)
        self._report(runner, metric, best if self.best_over_time else now, f"layers_iter_{runner.iter}")

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write the report."""
        metric = _layer_metric(runner.test_loop.evaluator)
        self._report(runner, metric, _with_settings(runner, metric.rows), "layers_test")

    def _keep_best(self, runner: Runner, metric: LayerMetric, now: list[dict]) -> list[dict]:
        """Save the best probe if it has improved; return the best row of each probe."""
        note = Path(runner.work_dir) / "best_by_probe.json"
        before = json.loads(note.read_text()) if note.exists() else now
        order = (metric.key, metric.higher_is_better)
        old, new = best_row(before, *order), best_row(now, *order)
        if new and (old is None or best_row([old, new], *order) is new or not note.exists()):
            row = metric.rows[now.index(new)]
            state = take_probe(_model(runner).state_dict(), row["layer"], row["setting"])
            meta = dict(new, dataset_meta=runner.val_loop.dataloader.dataset.metainfo)
            write_probe(Path(runner.work_dir) / "best_probe.pth", state, meta)
        best = [best_row(pair, *order) or pair[-1] for pair in zip(before, now, strict=True)]
        write_json(note, best)
        return best

    def _report(self, runner: Runner, metric: LayerMetric, rows: list[dict], name: str) -> None:
        paths = write_layer_report(
            Path(runner.log_dir) / name,
            rows,
            metric=metric.key,
            higher_is_better=metric.higher_is_better,
            title=f"{self.title}, {_model(runner).backbone.label}",
            unit=self.unit,
        )
        best = best_row(rows, metric.key, metric.higher_is_better)
        summary = f"Best layer: {best['layer']} ({metric.key} {best[metric.key]:.4g} {self.unit}), " if best else ""
        print_log(f"{summary}all layers: {paths['png']}", "current")


def _layer_metric(evaluator) -> LayerMetric:
    return next(metric for metric in evaluator.metrics if isinstance(metric, LayerMetric))


def _model(runner: Runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _with_settings(runner: Runner, rows: list[dict]) -> list[dict]:
    """Add learning rate and weight decay to rows if the sweep has several settings, else remove the setting index."""
    settings = _model(runner).settings
    if len(settings) > 1:
        return [dict(row, **settings[row["setting"]]) for row in rows]
    return [{name: value for name, value in row.items() if name != "setting"} for row in rows]
