"""One of two processes that share the tasks of a benchmark. Arguments: rank, port, folder of data, output folder."""

import os
import sys
from unittest.mock import patch

import torch

from helpers.tiny_bench import tiny_bench
from pe_dense.engine.distributed import destroy_distributed, start_processes
from pe_dense.evaluation import bench


def main():
    rank, port, data, out = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ |= dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    start_processes("pytorch")
    with tiny_bench(), patch.object(bench, "_evaluate", wraps=bench._evaluate) as evaluate:
        bench.run_bench(["timm/a", "timm/b"], data_root=data, out=out, layers="all", workers=0, cache=f"{out}/cache")
    destroy_distributed()
    print(f"evaluated {evaluate.call_count}")


if __name__ == "__main__":
    main()
