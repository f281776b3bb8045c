"""One of the processes that torchrun starts: training runs one after the other, each in a fork of this process.

The libraries are imported once per process instead of once per run. Arguments: a JSON list of the arguments of each run
of tools/train.py.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import torch

import pe_dense.detection
import pe_dense.engine.build_runner
import pe_dense.engine.runner  # noqa: F401

TOOL = str(Path(__file__).parents[2] / "tools" / "train.py")


def main():
    torch.set_num_threads(1)
    for number, arguments in enumerate(json.loads(sys.argv[1])):
        if not (child := os.fork()):
            # The processes find each other in torchrun's store under keys that this number makes new.
            os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
            sys.argv = [TOOL, *arguments]
            runpy.run_path(TOOL, run_name="__main__")
            sys.stdout.flush()
            os._exit(0)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"run {number} ended with exit status {status}")


if __name__ == "__main__":
    main()
