"""Compare attention written out as two matrix products and a softmax with PyTorch's fused function, in training.

    python benchmarks/attention.py
    python benchmarks/attention.py --tokens 400 577 784 --dtype bfloat16

Forward and backward pass of :func:`pe_dense.backbones.attention.attend_written_out` and of
``F.scaled_dot_product_attention`` run in the same rounds. `written out is faster` compares their sums, `attend uses it`
is the choice of :func:`~pe_dense.backbones.attention.attend`, which is limited to sequences whose weights need little
memory.
"""

import argparse
import os
import time
from pathlib import Path

from utils import quartiles, write_table


def measure(functions: dict, shape: tuple[int, ...], dtype, repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median ms of forward and backward pass of each function, measured in alternating rounds."""
    import torch

    batch, heads, tokens, head_dim = shape
    qkv = torch.randn(batch, tokens, 3, heads, head_dim, dtype=dtype)  # the layout of the towers' projection
    grad = torch.randn(batch, tokens, heads, head_dim, dtype=dtype).transpose(1, 2)
    times = {name: ([], []) for name in functions}
    for number in range(repeats + 1):
        for name, function in functions.items():
            q, k, v = qkv.clone().requires_grad_().permute(2, 0, 3, 1, 4).unbind()
            start = time.perf_counter()
            output = function(q, k, v)
            middle = time.perf_counter()
            output.backward(grad)
            if number:  # the first round is a warm-up
                times[name][0].append(middle - start)
                times[name][1].append(time.perf_counter() - middle)
    return {name: tuple(quartiles(values)[1] * 1e3 for values in both) for name, both in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[65, 257, 1025])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch-tokens", type=int, default=256 * 65, help="tokens of a batch (16,640)")
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/attention.json"))
    args = parser.parse_args()

    import torch
    import torch.nn.functional as F

    from pe_dense.backbones.attention import attend, attend_written_out
    from pe_dense.engine.optimizers.cpu_amp import bfloat16_instructions

    torch.set_num_threads(args.threads)
    functions = {
        "written out": attend_written_out,
        "fused": F.scaled_dot_product_attention,
    }
    rows = []
    for tokens in args.tokens:
        for name in args.dtype:
            dtype = getattr(torch, name)
            shape = (max(args.batch_tokens // tokens, 1), args.heads, tokens, args.head_dim)
            times = measure(functions, shape, dtype, args.repeats)
            inputs = [torch.randn(1, 1, tokens, args.head_dim, dtype=dtype, requires_grad=True) for _ in range(3)]
            row = dict(tokens=tokens, batch=shape[0], dtype=name)
            for kind, (forward, backward) in times.items():
                row |= {f"{kind}: forward ms": round(forward, 1), f"{kind}: backward ms": round(backward, 1)}
            row["written out is faster"] = "yes" if sum(times["written out"]) < sum(times["fused"]) else "no"
            row["attend uses it"] = "no" if "ScaledDot" in type(attend(*inputs).grad_fn).__name__ else "yes"
            rows.append(row)
    instructions = bfloat16_instructions() or "neither AMX nor AVX512-BF16"
    write_table(rows, args.output, threads=args.threads, cpu=instructions)
    print(f"CPU: {instructions}")


if __name__ == "__main__":
    main()
