"""Run all benchmarks at a small size and write one report, which begins with what each is compared with.

python benchmarks/run_all.py                    # minutes on two cores: work_dirs/benchmarks/report.md
python benchmarks/run_all.py tower detection    # only some
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from peers import comparison_table

from pe_dense.utils.atomic_write import write_text

HERE = Path(__file__).parent
RESULTS = Path("work_dirs/benchmarks")  # of the benchmarks, in JSON

# Arguments of each benchmark, for a machine with two cores.
SMALL = dict(
    tower=["--arch", "PE-Spatial-T16-512", "--batch", "4", "--repeats", "5"],
    training_step=["--batch", "64", "--repeats", "7"],
    detector_step=["--repeats", "3"],
    lora=["--size", "256", "--repeats", "3"],
    roi_align=["--sides", "16", "64", "--regions", "64", "--repeats", "3"],
    attention=["--batch-tokens", "4096", "--repeats", "3"],
    detection=["--size", "256", "--window", "8", "--repeats", "9", "--no-compile"],
    data_loading=["--repeats", "3"],
    annotations=["--annotations", "20000", "--repeats", "2"],
    predict=["--images", "8", "--repeats", "2"],
    soft_nms=["--repeats", "3"],
    deform_attn=["--size", "608", "--repeats", "3"],
    mask_transformers=["--size", "256", "--repeats", "3"],
    metrics=["--images", "100", "--repeats", "2"],
    probing=[],
    propagation=["--repeats", "2"],
    evaluation=["--repeats", "2"],
    pca=[],
    alignment=["--points-per-side", "6", "--repeats", "1"],
    export=["--rounds", "3"],
    cost_model=[],
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SMALL)} (all)")
    parser.add_argument("--output", type=Path, default=RESULTS / "report.md")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SMALL):
        parser.error(f"unknown benchmarks {', '.join(sorted(unknown))}; available: {', '.join(SMALL)}")

    names = args.names or list(SMALL)
    sections, failed, begin, since = [], [], time.perf_counter(), time.time()
    for number, name in enumerate(names, 1):
        command = [sys.executable, str(HERE / f"{name}.py"), *SMALL[name]]
        shown = " ".join(["python", f"benchmarks/{name}.py", *SMALL[name]])
        print(f"[{number}/{len(names)}] {shown}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            failed.append(name)
        text = done.stdout if not done.returncode else f"{done.stdout}\nfailed:\n{done.stderr[-2000:]}"
        print(f"{text}\n({seconds:.0f} s)\n", flush=True)
        sections.append(f"## {name}\n\n`{shown}` ({seconds:.0f} s)\n\n```\n{text.strip()}\n```\n")
        # Written after each benchmark, so that an interrupted report keeps its results.
        args.output.parent.mkdir(parents=True, exist_ok=True)
        summary = "\n".join(comparison_table(RESULTS, since))
        write_text(args.output, "\n".join([heading(), summary, "", *sections]))
    print(f"Written: {args.output} ({(time.perf_counter() - begin) / 60:.1f} minutes)")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return bool(failed)


def heading() -> str:
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "onedl-mmdetection", "timm"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"# Benchmarks\n\n{machine}, {versions}\n"


if __name__ == "__main__":
    raise SystemExit(main())
