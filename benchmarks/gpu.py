"""Run everything that needs a GPU in one go, and write one report: at most 10 minutes on one GPU with 80 GB.

    python benchmarks/gpu.py                       # work_dirs/benchmarks/gpu.md
    python benchmarks/gpu.py --tiny                # the same commands at small sizes on a CPU, to try them out
    python benchmarks/gpu.py kernels tower         # only some

Parts are run in the order of their importance, each in processes of its own with a time limit. A part that would exceed
the time that is left is cut off; what it has printed until then is kept. The report is written after each part.

* kernels: tests of the Triton kernels of deformable attention, and their speed in an encoder layer at 1824 px
* tower: forward of G14 at 448 px in bfloat16, eager and compiled, with the share of the GPU's matrix throughput
* detection: step of Mask R-CNN at 1024 px with and without activation checkpointing, images/s and memory
* deta: deformable attention of 1824 px in bfloat16, and soft-NMS
* precision: losses of the same 40 iterations in float32 and with --amp
* fsdp: a sharded run on one GPU
* sweep: step of the linear probes of all 50 layers at once
* teacher: features of SAM 2.1 for Spatial alignment
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from pe_dense.utils.atomic_write import write_text

HERE = Path(__file__).parent
PYTHON = sys.executable
BUDGET = 600.0  # seconds
G14, T16 = "PE-Spatial-G14-448", "PE-Spatial-T16-512"


def script(name: str, **options) -> list[str]:
    """Return the command of a benchmark."""
    command = [PYTHON, str(HERE / f"{name}.py")]
    for option, value in options.items():
        command.append(f"--{option.replace('_', '-')}")
        if value is not True:
            command += map(str, value) if isinstance(value, tuple) else [str(value)]
    return command


def training(work_dir: Path, iterations: int, *options: str, launcher: tuple[str, ...] = ()) -> list[str]:
    """Return the command of a short run on generated shapes."""
    values = (
        f"data_root={work_dir.parent / 'shapes'}",
        f"train_cfg.max_iters={iterations}",
        f"train_cfg.val_interval={10 * iterations}",
        "default_hooks.logger.interval=10",
    )
    start = [PYTHON, *launcher] if launcher else [PYTHON]
    train = [*start, str(HERE.parent / "tools/train.py"), "shapes_maskrcnn_pe_tiny", "--work-dir", str(work_dir)]
    return [*train, *options, "--cfg-options", *values]


def parts(device: str, tiny: bool, work: Path) -> dict[str, tuple[float, list[list[str]]]]:
    """Return time limits in seconds and commands of all parts."""
    gpu = dict(device=device)
    half = dict(gpu, dtype="bfloat16")
    arch, repeats, iterations = (T16, 1, 2) if tiny else (G14, 10, 40)
    tests = str(HERE.parent / "tests/ops/test_ops_deform_attn_triton.py")
    shard = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    deform_attn = dict(size=128 if tiny else 1824, repeats=repeats)
    return dict(
        kernels=(
            90,
            [
                [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
                script("deform_attn", **gpu, **deform_attn),
            ],
        ),
        tower=(
            150,
            [
                script(
                    "tower",
                    **half,
                    arch=arch,
                    size=64 if tiny else 448,
                    batch=2 if tiny else 64,
                    repeats=repeats,
                    tasks="forward",
                    **({} if tiny else dict(compile=True)),
                )
            ],
        ),
        detection=(
            120,
            [
                script(
                    "detection",
                    **half,
                    arch=arch,
                    size=128 if tiny else 1024,
                    window=4 if tiny else 32,
                    repeats=1 if tiny else 5,
                    no_compile=True,
                )
            ],
        ),
        deta=(60, [script("deform_attn", **half, **deform_attn), script("soft_nms", repeats=1)][: 1 if tiny else 2]),
        precision=(
            90,
            [training(work / "float32", iterations), training(work / "amp", iterations, "--amp")],
        ),
        fsdp=(60, [training(work / "fsdp", iterations, "--launcher", "pytorch", "--fsdp", launcher=shard)]),
        sweep=(
            60,
            [
                script(
                    "probing",
                    **half,
                    arch=arch,
                    size=64 if tiny else 448,
                    batch=1 if tiny else 16,
                    classes=3 if tiny else 150,
                    repeats=1 if tiny else 3,
                )
            ],
        ),
        teacher=(
            60,
            [script("alignment", **half, size="t" if tiny else "l", points_per_side=2 if tiny else 32, repeats=1)],
        ),
    )


def run(command: list[str], limit: float) -> tuple[str, str]:
    """Run a command with a time limit; return its output and how it ended, '' if well."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=max(limit, 1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        output, _ = process.communicate()
        return output, f"cut off after {limit:.0f} s"
    return output, f"failed with status {process.returncode}" if process.returncode else ""


def losses(output: str) -> str:
    """Extract the losses of a run's log as a line; empty for other output."""
    found = re.findall(r"Iter\(train\).*?\bloss: ([\d.]+|nan|inf)", output)
    return f"loss: {' '.join(found)}\n" if found else ""


def facts(device: str) -> str:
    """Describe the machine."""
    import torch

    name = "CPU"
    if device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"# GPU report\n\n{name}, {os.cpu_count()} cores, torch {torch.__version__}, CUDA {torch.version.cuda}\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PART", help="kernels, tower, ... (all)")
    parser.add_argument("--tiny", action="store_true", help="small sizes on a CPU")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="time of all parts (600)")
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/gpu.md"))
    args = parser.parse_args(arguments)

    import torch

    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU: try the commands on a CPU with --tiny")
    device = "cpu" if args.tiny else "cuda"
    work = args.output.resolve().parent / f"gpu_{int(time.time())}"
    planned = parts(device, args.tiny, work)
    if unknown := set(args.names) - set(planned):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; available: {', '.join(planned)}")
    sections, bad, begin = [facts(device)], [], time.monotonic()
    for name in args.names or planned:
        limit, commands = planned[name]
        start = time.monotonic()
        for command in commands:
            left = min(limit - (time.monotonic() - start), args.seconds - (time.monotonic() - begin))
            output, problem = run(command, left) if left > 0 else ("", "not started: no time left")
            if problem:
                bad.append(f"{name}: {problem}")
            shown = " ".join(["python", *command[1:]]).replace(f"{HERE.parent}/", "")
            text = losses(output) + "\n".join(output.strip().splitlines()[-40:])
            print(f"## {name}\n{shown}\n{text}\n{problem}\n", flush=True)
            sections.append(f"## {name}\n\n`{shown}`{f' **{problem}**' if problem else ''}\n\n```\n{text}\n```\n")
        sections.append(f"({time.monotonic() - start:.0f} s)\n")
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.output, "\n".join(sections))
    print(f"Written: {args.output} ({(time.monotonic() - begin) / 60:.1f} minutes)", *bad, sep="\n")
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main())
