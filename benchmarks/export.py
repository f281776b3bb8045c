"""Latency and accuracy of a tower in PyTorch (eager, compiled) and onnxruntime: float32, bfloat16, float16, int8.

python benchmarks/export.py [--arch PE-Spatial-T16-512] [--size 224] [--rounds 5]

Rows are measured alternately. Ratios are medians over the rounds, relative to PyTorch eager in float32; differences are
the largest of an output, relative to the largest value of eager float32.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime
import torch

from pe_dense.backbones import PETower
from pe_dense.export import export_graph, graph_of


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="PE-Spatial-T16-512")
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels (224)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    return parser.parse_args()


def onnx_row(tower, images, folder, threads, **options):
    """Export the tower and return a function that runs it, and the size of the file in MB."""
    name = "_".join(options) or "float32"
    graph = graph_of(copy.deepcopy(tower), size=tuple(images.shape[-2:]))
    path = export_graph(graph, Path(folder) / f"{name}.onnx", **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    feeds = {"images": images.numpy()}
    return (lambda: session.run(None, feeds)[0]), path.stat().st_size / 1e6


@torch.no_grad()
def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tower = PETower(args.arch).eval()
    images = torch.randn(1, 3, args.size, args.size)
    half = copy.deepcopy(tower).bfloat16()
    rows = {
        "PyTorch eager, float32": (lambda: tower(images)[0].numpy(), None),
        "PyTorch eager, bfloat16": (lambda: half(images)[0].float().numpy(), None),
    }
    if not args.no_compile:
        compiled = torch.compile(copy.deepcopy(tower))
        rows["PyTorch compiled, float32"] = (lambda: compiled(images)[0].numpy(), None)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("float32", {}), ("float16", dict(half=True)), ("int8", dict(int8=True))):
            rows[f"onnxruntime, {name}"] = onnx_row(tower, images, folder, args.threads, **options)
        outputs = {name: run() for name, (run, _) in rows.items()}  # warm-up
        times = {name: [] for name in rows}
        for _ in range(args.rounds):
            for name, (run, _) in rows.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    base = next(iter(rows))
    print(f"{args.arch}, 1 x 3 x {args.size} x {args.size}, {args.threads} thread(s), {args.rounds} rounds\n")
    print("| row | ms | time relative to eager | largest difference | file, MB |\n|---|---|---|---|---|")
    for name, (_, megabytes) in rows.items():
        ratio = statistics.median(one / other for one, other in zip(times[name], times[base], strict=True))
        difference = np.abs(outputs[name] - outputs[base]).max() / np.abs(outputs[base]).max()
        size = "" if megabytes is None else f"{megabytes:.1f}"
        print(f"| {name} | {1000 * statistics.median(times[name]):.1f} | {ratio:.2f} | {difference:.1e} | {size} |")


if __name__ == "__main__":
    main()
