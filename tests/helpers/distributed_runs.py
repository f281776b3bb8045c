"""One of the processes that torchrun starts: training runs one after the other, each in a fork of this process.

The libraries are imported once per process instead of once per run. Argument: a JSON list with a free port and the
arguments of tools/train.py for each run.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import peft  # noqa: F401 - of runs with LoRA
import torch

import pe_dense.detection
import pe_dense.engine.build_runner
import pe_dense.engine.runner  # noqa: F401

TOOL = str(Path(__file__).parents[2] / "tools" / "train.py")


def main():
    torch.set_num_threads(1)
    for port, arguments in json.loads(sys.argv[1]):
        if not (child := os.fork()):
            # torchrun's store still has the addresses of an earlier run's processes, so each run has its own.
            os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_PORT=str(port))
            sys.argv = [TOOL, *arguments]
            runpy.run_path(TOOL, run_name="__main__")
            sys.stdout.flush()
            os._exit(0)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"the run {arguments} ended with exit status {status}")


if __name__ == "__main__":
    main()
