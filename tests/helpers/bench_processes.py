"""One of two processes that share the tasks of a benchmark. Arguments: folder of the data, output folder."""

import sys
from pathlib import Path
from unittest.mock import patch

import torch

from helpers.tiny_bench import tiny_bench
from pe_dense.engine.distributed import destroy_distributed, start_processes
from pe_dense.evaluation import bench


def main():
    data, out = map(Path, sys.argv[1:])
    start_processes("pytorch")
    rank = torch.distributed.get_rank()
    with tiny_bench(), patch.object(bench, "_evaluate", wraps=bench._evaluate) as evaluate:
        bench.run_bench(["timm/a", "timm/b"], data_root=data, out=out, layers="all", workers=0)
    (out / f"evaluated_{rank}").write_text(str(evaluate.call_count))
    destroy_distributed()


if __name__ == "__main__":
    main()
