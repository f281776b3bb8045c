"""Measure label propagation of one frame: in tiles, with all pairs of patches at once, and patch by patch.

    python benchmarks/propagation.py [--device cuda]

Settings are those of the protocol (8 context frames, radius 12, top 5) with 3 classes, sizes those of DAVIS's frames at
patches of 16, 14 and 8 px and of the towers' widths. All in turns on random features; the results must agree. Memory is
that of one frame, in a process of its own.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from utils import in_turns, peak_memory, summary, write_table

# Name, grid, width; all pairs at 8 px take some 4 GB.
CASES = [
    ("S, 16 px", (30, 52), 384),
    ("B, 16 px", (30, 52), 768),
    ("G, 14 px", (34, 60), 1536),
    ("S, 8 px", (60, 104), 384),
]
SETTINGS = dict(radius=12, topk=5, temperature=0.1)
WAYS = ("here", "all pairs at once", "patch by patch")


def make_run(way, grid, width, device):
    import torch
    from helpers.propagation_loop import propagate_dense, propagate_loop

    from pe_dense.tracking.label_propagation import propagate

    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(9, *grid, width, device=device), dim=-1)
    labels = torch.rand(8, 3, *grid, device=device).softmax(1)
    function = dict(zip(WAYS, (propagate, propagate_dense, propagate_loop), strict=True))[way]
    return lambda: function(features[0], features[1:], labels, **SETTINGS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/propagation.json"))
    args = parser.parse_args()

    import torch

    import pe_dense  # noqa: F401

    torch.set_num_threads(args.threads)
    rows = []
    for name, grid, width in CASES:
        runs = {way: make_run(way, grid, width, args.device) for way in WAYS}
        size = "{} x {}".format(*grid)
        apart = {way: (run() - runs["here"]()).abs().max().item() for way, run in runs.items()}
        for way, values in summary(in_turns(runs, args.repeats, args.device), "patch by patch").items():
            memory = peak_memory(make_run, way, grid, width, args.device, device=args.device)
            rows.append(dict(case=name, grid=size, way=way, **values, mb=round(memory), apart=f"{apart[way]:.0e}"))
    facts = dict(device=args.device, threads=args.threads, torch=torch.__version__, settings=SETTINGS)
    write_table(rows, args.out, **facts)


if __name__ == "__main__":
    main()
