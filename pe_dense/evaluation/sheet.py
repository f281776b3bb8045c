"""Sheet of the benchmark: tables in Markdown, CSV and JSON, plots by layer and over tasks, published values beside."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pe_dense.engine.layer_report import best_row
from pe_dense.evaluation.task import Task
from pe_dense.utils.atomic_write import atomic_write, write_json, write_text

_COLUMNS = ("task", "tower", "metric", "value", "layer", "best", "best_layer", "published", "source")


def published_values() -> list[dict]:
    """Return published values: dicts with ``task``, ``tower``, ``value`` in the unit of the task, and ``source``."""
    return json.loads(resources.files("pe_dense.evaluation").joinpath("published.json").read_text())["values"]


def write_sheet(
    out: Path,
    results: Sequence[dict],
    present: Sequence[Task],
    absent: Sequence[Task],
    skipped: Sequence[dict],
    data_root: Path,
) -> Path:
    """Write ``sheet.md``, ``sheet.csv``, ``sheet.json``, ``tasks.png`` and ``layers_<task>.png``, replacing old ones.

    Args:
        out: output folder.
        results: dicts of :func:`~pe_dense.evaluation.bench.run_bench`.
        present, absent: tasks with and without data.
        skipped: dicts with ``tower``, ``task`` and ``reason``.
        data_root: folder of all data.

    Returns:
        path of ``sheet.md``.
    """
    out.mkdir(parents=True, exist_ok=True)
    tasks = {task.name: task for task in present}
    rows = [_summary(result, tasks[result["task"]]) for result in results]
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "sheet.csv", table.getvalue())
    write_json(out / "sheet.json", dict(rows=rows, results=list(results), skipped=list(skipped)), indent=1)
    plots = _write_plots(out, results, present)
    write_text(out / "sheet.md", _markdown(rows, present, absent, skipped, data_root, plots))
    return out / "sheet.md"


def _summary(result: dict, task: Task) -> dict:
    """Reduce a result to a row of the sheet: the last evaluated layer, the best one, and the published value."""
    metric, digits = result["metric"], 2 if task.unit == "%" else 4
    last, best = result["rows"][-1], best_row(result["rows"], metric, task.higher_is_better) or result["rows"][-1]
    known = next((v for v in published_values() if v["task"] == result["task"] and v["tower"] == result["tower"]), None)
    return dict(
        task=result["task"],
        tower=result["tower"],
        metric=metric,
        value=round(last[metric], digits),
        layer=last["layer"],
        best=round(best[metric], digits),
        best_layer=best["layer"],
        published=known and known["value"],
        source=known and known["source"],
    )


def _markdown(
    rows: list[dict],
    present: Sequence[Task],
    absent: Sequence[Task],
    skipped: Sequence[dict],
    data_root: Path,
    plots: list[str],
) -> str:
    towers = list(dict.fromkeys(row["tower"] for row in rows))
    by_place = {(row["task"], row["tower"]): row for row in rows}
    lines = [
        "# Benchmark",
        "",
        "Values of the last evaluated layer, in percent or the given unit; in brackets the best layer and its value.",
        "",
    ]
    tasks = {task.name: task for task in present}
    lines += [f"| task | metric | {' | '.join(towers)} |", f"|---|---|{'---|' * len(towers)}"]
    for task in present:
        cells = [_cell(by_place.get((task.name, tower)), task) for tower in towers]
        metric = task.metric if task.unit == "%" else f"{task.metric} ({task.unit})"
        lines.append(f"| {task.title} | {metric} | {' | '.join(cells)} |")
    lines += ["", "## Published values", ""]
    values = [value for value in published_values() if value["task"] in tasks]
    if values:
        lines += ["| task | backbone | value | source |", "|---|---|---|---|"]
        lines += [f"| {v['task']} | {v['tower']} | {v['value']} | {v['source']} |" for v in values]
    else:
        lines.append("None for these tasks.")
    lines += ["", "## Protocols", ""]
    lines += [f"- `{task.name}`: {task.protocol}" for task in present]
    if skipped:
        lines += ["", "## Skipped", ""]
        lines += [f"- `{item['task']}`, {item['tower']}: {item['reason']}" for item in skipped]
    if absent:
        lines += ["", "## Tasks without data", "", "| task | missing | where to get it |", "|---|---|---|"]
        lines += [f"| `{task.name}` | {task.missing(data_root)} | {task.source} |" for task in absent]
    if plots:
        lines += ["", "## Plots", ""] + [f"![{name}]({name})" for name in plots]
    return "\n".join(lines) + "\n"


def _cell(row: dict | None, task: Task) -> str:
    if row is None:
        return "-"
    extra = f" ({row['best_layer']}: {task.text(row['best'])})" if row["best"] != row["value"] else ""
    if row["published"] is not None:
        extra += f" [published {task.text(row['published'])}]"
    return f"{task.text(row['value'])}{extra}"


def _write_plots(out: Path, results: Sequence[dict], present: Sequence[Task]) -> list[str]:
    """Draw a plot by layer of each task with several layers, and a radar plot over the tasks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = []
    titles = {task.name: task.title for task in present}
    units = {task.name: task.unit for task in present}

    def finish(figure, name: str) -> None:
        with atomic_write(out / name) as file:
            figure.savefig(file, format="png")
        names.append(name)

    for task in dict.fromkeys(result["task"] for result in results):
        chosen = [result for result in results if result["task"] == task and len(result["rows"]) > 1]
        if not chosen:
            continue
        figure = Figure(figsize=(5.6, 3.5), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for result in chosen:
            layers, values = zip(*((row["layer"], row[result["metric"]]) for row in result["rows"]), strict=True)
            axes.plot(layers, values, marker="o", ms=3, label=result["tower"])
        axes.set_title(titles.get(task, task))
        axes.set_xlabel("layer (block number, from 0)")
        axes.set_ylabel(f"{chosen[0]['metric']} ({units[task]})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9", linewidth=0.6)
        axes.legend(fontsize=7, frameon=False)
        finish(figure, f"layers_{task}.png")
    tasks = list(dict.fromkeys(result["task"] for result in results if units[result["task"]] == "%"))
    if len(tasks) >= 3:
        figure = Figure(figsize=(6.4, 5), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(projection="polar")
        angles = [2 * math.pi * i / len(tasks) for i in range(len(tasks))]
        for tower in dict.fromkeys(result["tower"] for result in results):
            values = {r["task"]: r["rows"][-1][r["metric"]] for r in results if r["tower"] == tower}
            line = [values.get(task, math.nan) for task in tasks]
            axes.plot([*angles, angles[0]], [*line, line[0]], marker="o", ms=3, label=tower)
        axes.set_xticks(angles, [titles.get(task, task) for task in tasks], fontsize=7)
        axes.set_ylim(0, 100)
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.1))
        finish(figure, "tasks.png")
    return names
