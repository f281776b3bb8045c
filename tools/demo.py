#!/usr/bin/env python
"""See everything at work in minutes on a CPU: a detector, probes, tracking, words and features of PE-Mini, in one page.

A run that was interrupted continues where it stopped.
"""

import argparse
from pathlib import Path

from pe_dense.engine.arguments import path
from pe_dense.utils.errors import one_line_errors, run_main


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=path, default=Path("work_dirs/demo"), help="output folder (work_dirs/demo)")
    return parser.parse_args()


def main():
    args = parse_args()
    from pe_dense.utils.signals import STOP

    with STOP.handled(), one_line_errors():
        from pe_dense.apps.demo import run_demo

        page = run_demo(args.out)
    print(f"Page: {page}")


if __name__ == "__main__":
    run_main(main)
