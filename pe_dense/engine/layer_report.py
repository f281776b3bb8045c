"""Write a metric per layer as a table and a plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from pe_dense.utils.atomic_write import atomic_write, write_json

_LINE, _BEST = "#1f77b4", "#d62728"


def write_layer_report(
    folder: str | Path,
    rows: Sequence[Mapping],
    *,
    metric: str,
    higher_is_better: bool,
    title: str,
    unit: str = "",
) -> dict[str, Path]:
    """Write ``layers.csv``, ``layers.json`` and ``layers.png``, with the best layer marked.

    Existing files are kept: the next report of a folder is ``layers_2.*``, then ``layers_3.*``. A layer may have
    several rows, for different settings; the plot's line then connects the best of each layer.

    Args:
        folder: output folder, created if missing.
        rows: one per measurement, each with ``layer`` (block number from 0), the metric and any other columns of the
            table; a metric that is not finite is never the best, and null in JSON.
        metric: name of the metric to plot and compare.
        higher_is_better: whether higher values of the metric are better.
        title: title of the plot.
        unit: unit of the metric on the plot's axis ('%', 'm').

    Returns:
        paths of the files, under 'csv', 'json' and 'png'.

    Raises:
        ValueError: if there are no rows, or a row without ``layer`` or the metric.
    """
    rows = sorted((dict(row) for row in rows), key=_layer_of(metric))
    if not rows:
        raise ValueError("A report by layer needs at least one row, got none")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = _new_paths(folder)
    best = best_row(rows, metric, higher_is_better)

    columns = list(dict.fromkeys(["layer", metric, *(name for row in rows for name in row)]))
    with atomic_write(paths["csv"], "w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    content = dict(
        title=title,
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        best=best and _finite(best),
        rows=[_finite(row) for row in rows],
    )
    write_json(paths["json"], content, indent=2)
    _plot(paths["png"], rows, best, metric=metric, higher_is_better=higher_is_better, title=title, unit=unit)
    return paths


def best_row(rows: Sequence[Mapping], metric: str, higher_is_better: bool) -> Mapping | None:
    """Return the row with the best finite metric, the first of equal ones; None if no metric is finite."""
    finite = [row for row in rows if math.isfinite(row[metric])]
    choose = max if higher_is_better else min
    return choose(finite, key=lambda row: row[metric]) if finite else None


def _layer_of(metric: str):
    def layer(row: Mapping) -> int:
        if missing := [name for name in ("layer", metric) if name not in row]:
            raise ValueError(f"A row of the report by layer has no {' and no '.join(missing)}: {row}")
        return row["layer"]

    return layer


def _new_paths(folder: Path) -> dict[str, Path]:
    for number in count(1):
        name = "layers" if number == 1 else f"layers_{number}"
        paths = {kind: folder / f"{name}.{kind}" for kind in ("csv", "json", "png")}
        if not any(path.exists() for path in paths.values()):
            break
    return paths


def _finite(row: Mapping) -> dict:
    """Replace NaN and infinity by None, since JSON does not have them."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _plot(
    path: Path, rows: list[dict], best: Mapping | None, *, metric: str, higher_is_better: bool, title: str, unit: str
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers = sorted({row["layer"] for row in rows})
    by_layer = [best_row([row for row in rows if row["layer"] == layer], metric, higher_is_better) for layer in layers]
    line = [math.nan if row is None else row[metric] for row in by_layer]
    figure = Figure(figsize=(5.6, 3.5), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(rows) > len(layers):
        axes.scatter(
            [row["layer"] for row in rows], [row[metric] for row in rows], s=10, color="0.7", label="other settings"
        )
    axes.plot(
        layers,
        line,
        marker="o",
        markersize=4,
        linewidth=1.5,
        color=_LINE,
        label="each layer's best" if len(rows) > len(layers) else metric,
    )
    if best is not None:
        label = f"best: layer {best['layer']}, {best[metric]:.4g}{unit and ' '}{unit}"
        axes.axhline(best[metric], color=_BEST, linewidth=0.8, linestyle=":")
        axes.plot(best["layer"], best[metric], "o", markersize=8, color=_BEST, label=label)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("layer (block number, from 0)")
    axes.set_ylabel(f"{metric} ({unit})" if unit else metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
