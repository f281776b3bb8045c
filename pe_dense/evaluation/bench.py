"""Run the benchmark: every task on every backbone, with results that are kept and reused."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log

from pe_dense.backbones import PE_CONFIGS, Backbone
from pe_dense.backbones.base import TIMM_PREFIX, parse_layers
from pe_dense.backbones.build import RANDOM, choose_device, open_tower
from pe_dense.engine.layer_report import best_row
from pe_dense.evaluation.features import fingerprint
from pe_dense.evaluation.run import TaskRun
from pe_dense.evaluation.sheet import write_sheet
from pe_dense.evaluation.task import Task
from pe_dense.evaluation.tasks import select_tasks
from pe_dense.evaluation.words import open_text
from pe_dense.utils.atomic_write import write_json
from pe_dense.utils.checkpoint import HUB_PREFIX
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.package_weights import PACKAGE_PREFIX

# Increment it whenever the code gives other values for the same arguments: stored results are then computed again.
VERSION = 2


def run_bench(
    towers: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    data_root: str | Path = "data",
    out: str | Path = "work_dirs/bench",
    layers: str = "-1",
    device: str | None = None,
    batch_size: int = 8,
    workers: int = 2,
    cache: str | Path | None = None,
    memory_limit: float = 4.0,
) -> Path:
    """Evaluate backbones and write the sheet.

    Results are stored as ``<out>/results/<backbone>/<task>.json``. A task whose weights, layers and version are the
    same is not run again, so an interrupted benchmark continues where it stopped. Tasks without data are listed with
    the address of their data. If the process group of PyTorch is initialized, the processes share the tasks, and the
    first one writes the sheet; results do not depend on their number.

    Args:
        towers: published name (``PE-Spatial-B16-512``), ``timm/<model>``, either with ``=<weights>`` (a file, a work
            dir, or 'random'), or the path of a checkpoint or work dir of a training run.
        tasks: see :func:`~pe_dense.evaluation.tasks.select_tasks`.
        data_root: folder of all data.
        out: output folder.
        layers: block numbers from 0, negative ones from the end, separated by commas; or 'all'.
        device: a GPU by default, if available.
        batch_size: images of a forward pass.
        workers: processes that read images.
        cache: folder of the feature cache; None for none.
        memory_limit: GB that the features of several layers may take together.

    Returns:
        path of the sheet in Markdown.

    Raises:
        ConfigError: for an unknown task or backbone, one that is given twice, or if no task can run.
        ValueError, FileNotFoundError: see :func:`~pe_dense.backbones.build.open_tower`.
    """
    data_root, out = Path(data_root), Path(out)
    if len(set(towers)) < len(towers):
        raise ConfigError(f"each backbone may be given once, got {', '.join(towers)}")
    for name in towers:
        _check_name(name)
    parse_layers(layers)
    present, absent = select_tasks(tasks, data_root)
    for task in absent:
        print_log(f"{task.name}: {task.missing(data_root)} not found; get it from {task.source}", "current")
    if not present:
        raise ConfigError(f"no task has its data in {data_root}; the tasks `shapes` need none")
    options = dict(
        batch_size=batch_size,
        workers=workers,
        cache=None if cache is None else Path(cache),
        memory_limit=1e9 * memory_limit,
    )
    rank, world = get_dist_info()
    device = choose_device(device if device or world == 1 else _own_device())
    # Neighboring tasks, which cost about the same, go to different processes.
    shares = {name: present[(rank - number * len(present)) % world :: world] for number, name in enumerate(towers)}
    found = []
    for name, share in shares.items():
        if share:
            found += _run(name, share, data_root, out, layers, device, options)
    found = [result for part in all_gather_object(found) for result in part]
    order = {(name, task.name): place for place, (name, task) in enumerate(product(towers, present))}
    found.sort(key=lambda result: order[result["tower"], result["task"]])
    if rank == 0:
        results, skipped = ([item for item in found if ("rows" in item) == whole] for whole in (True, False))
        write_sheet(out, results, present, absent, skipped, data_root)
    return out / "sheet.md"


def _run(
    name: str, tasks: Sequence[Task], data_root: Path, out: Path, layers: str, device: torch.device, options: dict
) -> Iterator[dict]:
    """Yield the result of each task on one backbone, or a dict with ``tower``, ``task`` and ``reason`` if skipped."""
    tower = open_named(name, device)
    weights, numbers = fingerprint(tower), tuple(parse_layers(layers, tower.num_layers))
    text = lru_cache(maxsize=1)(partial(open_text, name, device))
    text_weights = lru_cache(maxsize=1)(lambda: fingerprint(text()))
    for task in tasks:
        path = out / "results" / file_name(name) / f"{task.name}.json"
        key = dict(version=VERSION, weights=weights, layers=list(numbers), protocol=task.protocol)
        try:
            if task.needs_text:
                key["weights"] = text_weights()
            result = _stored(path, key)
            if result is None:
                run = TaskRun(
                    tower,
                    data_root / task.folder,
                    numbers,
                    weights=weights,
                    figure=path.with_suffix(".png"),
                    text=text if task.needs_text else None,
                    **options,
                )
                result = _evaluate(name, task, run, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, result, indent=1)
            else:
                print_log(f"{task.name}, {name}: from {path}", "current")
        except InputError as error:
            # Such as a model that accepts images of one size only: the other tasks can still run.
            print_log(f"{task.name}, {name}: skipped: {error}", "current")
            result = dict(tower=name, task=task.name, reason=str(error))
        yield result


def _own_device() -> str:
    """Return the GPU of this process, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def _evaluate(name: str, task: Task, run: TaskRun, key: dict) -> dict:
    start = time.monotonic()
    rows = task.evaluate(run)
    seconds = time.monotonic() - start
    best = best_row(rows, task.metric, task.higher_is_better) or rows[-1]
    print_log(
        f"{task.name}, {name}: {task.metric} {task.text(rows[-1][task.metric])}"
        + (f", best layer {best['layer']} {task.text(best[task.metric])}" if len(rows) > 1 else "")
        + f", {seconds:.0f} s",
        "current",
    )
    return dict(tower=name, task=task.name, metric=task.metric, rows=rows, seconds=round(seconds, 1), key=key)


def _stored(path: Path, key: dict) -> dict | None:
    """Read a stored result; None if there is none, or one of other weights, layers or versions."""
    try:
        result = json.loads(path.read_text())
        return result if result["key"] == key and result["rows"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_name(name: str) -> None:
    """Raise an error for a backbone that cannot be found, before others are evaluated for hours."""
    arch, _, weights = name.partition("=")
    known = arch in PE_CONFIGS or arch.startswith(TIMM_PREFIX)
    source = weights if known else name
    if not source or source == RANDOM or source.startswith((HUB_PREFIX, PACKAGE_PREFIX)) or Path(source).exists():
        return
    if known:
        raise ConfigError(f"weights {source} of {arch} do not exist: name a file, a work dir, hf://... or random")
    close = get_close_matches(arch, PE_CONFIGS, n=2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ConfigError(f"{name} is not a published backbone, timm/<name>, or an existing file or work dir.{hint}")


def open_named(name: str, device: torch.device) -> Backbone:
    """Open a backbone by the name that the command line takes; see :func:`run_bench`."""
    arch, separator, weights = name.partition("=")
    if arch in PE_CONFIGS or arch.startswith(TIMM_PREFIX):
        # The same random weights in every process, so that stored results are found again.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return open_tower(arch, weights if separator else None, device=device)
    return open_tower(None, name, device=device)


def file_name(name: str) -> str:
    """Convert the name of a backbone to that of a folder."""
    return re.sub(r"[^\w.=-]+", "_", name).strip("_.") or "backbone"
