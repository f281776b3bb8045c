"""Utilities of the benchmarks: alternating timing, memory in a separate process, tables.

Machines are shared and clock rates vary, so all rows of a comparison run alternately, and the reported ratio is the
median of the ratios within each round.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pe_dense.utils.atomic_write import write_json


def in_turns(runs: dict[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Measure the seconds of each function in alternating rounds, after one warm-up run each."""
    for run in runs.values():
        run()  # compilation and selection of algorithms
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def start_row(script: str, arguments: list, threads: int, before: Path | None = None) -> subprocess.Popen:
    """Start the process of a row, which works for each line of its standard input.

    Args:
        script: file of the benchmark.
        arguments: its arguments.
        threads: of the process.
        before: another checkout of this repository that the process imports, instead of the script's own.
    """
    root = before.resolve() if before else Path(script).resolve().parents[1]
    return subprocess.Popen(
        [sys.executable, str(Path(script).resolve()), *map(str, arguments), "--threads", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS=str(threads)),
    )


def write_step_table(
    measured: dict[str, list[tuple[float, float]]], peer: str, path: Path, batch: int, **facts
) -> None:
    """Print and write the table of rows measured as (seconds, processor seconds) per step, and the CPU's instructions.

    Args:
        measured: values of each row, in rounds.
        peer: name of the row that the others are compared with.
        path, facts: see :func:`write_table`.
        batch: images of a step.
    """
    from pe_dense.engine.optimizers.cpu_amp import bfloat16_instructions

    wall, cpu = (summary({name: [both[i] for both in rows] for name, rows in measured.items()}, peer) for i in (0, 1))
    table = [
        {"row": name, **wall[name], "images/s": round(batch / wall[name]["ms"] * 1e3, 1)}
        | {"CPU ms": cpu[name]["ms"], "of CPU times": cpu[name]["times_faster"]}
        for name in measured
    ]
    instructions = bfloat16_instructions() or "neither AMX nor AVX512-BF16"
    write_table(table, path, cpu=instructions, peer=peer, batch=batch, **facts)
    print(f"CPU: {instructions}")


def summary(seconds: dict[str, list[float]], peer: str) -> dict[str, dict[str, float]]:
    """Compute median and quartiles in ms of each row, and how many times faster than the peer it is, per round."""
    result = {}
    for name, values in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[peer], values, strict=True)]
        low, middle, high = quartiles(values)
        result[name] = dict(
            ms=round(middle * 1e3, 1),
            quartiles=[round(low * 1e3, 1), round(high * 1e3, 1)],
            times_faster=round(statistics.median(ratios), 3),
        )
    return result


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def peak_memory(make_run: Callable, *arguments, device: str = "cpu") -> float:
    """Measure the additional MB of a run in a separate process.

    Args:
        make_run: called with the arguments in that process, returns the function to run; must be importable.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure_memory, args=(make_run, arguments, device, queue))
    process.start()
    while True:
        try:
            value = queue.get(timeout=1)
            break
        except Exception:
            if not process.is_alive() and queue.empty():
                raise RuntimeError(f"{make_run.__name__}{arguments} ended without a result") from None
    process.join()
    return value


def _measure_memory(make_run: Callable, arguments: tuple, device: str, queue) -> None:
    run = make_run(*arguments)
    if device == "cpu":
        # Not `getrusage`, whose peak includes that of the parent process.
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before = _resident("VmRSS")
        run()
        peak = _resident("VmHWM")
    else:
        import torch

        run()  # compilation and selection of algorithms use additional memory
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        peak = torch.cuda.max_memory_allocated()
    queue.put(max(peak - before, 0) / 2**20)


def _resident(entry: str) -> int:
    """Read the memory of this process in bytes (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{entry}:")]
    return int(line.split()[1]) * 1024


def synchronize(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def write_table(rows: list[dict], path: Path, **facts) -> None:
    """Print rows as a table, and write them with information about the run as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for number, line in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(facts, rows=rows), indent=1)
    print(f"\nWritten: {path}")


def _text(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " .. ".join(map(str, value))
    return str(value)
