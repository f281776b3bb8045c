#!/usr/bin/env python
"""Evaluate frozen backbones on dense tasks: tools/bench.py TOWER... --tasks shapes

Runs every task whose data are in --data-root, lists the others with the address of their data, and writes one sheet
(sheet.md, .csv, .json, plots, figures) to --out. Results are kept: an interrupted benchmark continues, and a new
backbone is added to the sheet by running it together with the old ones. Tasks and protocols: docs/benchmark.md.
"""

import argparse

from pe_dense.engine.arguments import add_towers, number, path, text, whole_number
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_towers(parser)
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=text,
        metavar="TASK",
        help="tasks, or beginnings of their names: shapes, voc_knn, spair, davis, ... (all with data)",
    )
    parser.add_argument("--data-root", type=path, default="data", metavar="DIR", help="folder of all data sets (data)")
    parser.add_argument(
        "--out", type=path, default="work_dirs/bench", metavar="DIR", help="output folder (work_dirs/bench)"
    )
    parser.add_argument(
        "--layers",
        type=text,
        default="-1",
        metavar="N,N|all",
        help="block indices from 0, negative indices from the end, or all (-1)",
    )
    parser.add_argument("--device", type=text, help="cuda, cuda:1, cpu, ... (default: a GPU if available)")
    parser.add_argument("--batch-size", type=whole_number(1, 4096), default=8, help="images of a forward pass (8)")
    parser.add_argument("--workers", type=whole_number(0, 256), default=2, help="processes that read images (2)")
    parser.add_argument("--cache", type=path, metavar="DIR", help="store features in this folder and reuse them")
    parser.add_argument(
        "--memory-limit",
        type=number(0.001, 4096),
        default=4.0,
        metavar="GB",
        help="memory for features of several layers; layers are evaluated in groups that fit (4)",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="share the tasks among processes, as in tools/train.py: torchrun --nproc_per_node=8 tools/bench.py ...",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    with one_line_errors():
        from pe_dense.engine.distributed import destroy_distributed, start_processes
        from pe_dense.evaluation.bench import run_bench

        start_processes(args.launcher)
        sheet = run_bench(
            args.towers,
            tasks=args.tasks,
            data_root=args.data_root,
            out=args.out,
            layers=args.layers,
            device=args.device,
            batch_size=args.batch_size,
            workers=args.workers,
            cache=args.cache,
            memory_limit=args.memory_limit,
        )
        destroy_distributed()
        print(sheet)


if __name__ == "__main__":
    run_main(main)
