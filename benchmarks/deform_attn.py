"""Measure time and memory of deformable attention in a layer of DETA's encoder.

    python benchmarks/deform_attn.py                                        # a quarter of the tokens of 1824 px
    python benchmarks/deform_attn.py --size 1824 --device cuda --repeats 20

Every token of five levels samples 4 points on each level, with 8 heads of 32 channels. Rows: mmcv's PyTorch
implementation (used without compiled kernels), the same one map at a time with recomputation in the backward pass,
PyTorch's embedding bags, and on a GPU the Triton kernels; the last two are those of pe_dense. Memory is that of a
forward and backward pass beyond its input, including the output of 71 MB in float32 at 1824 px.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

ROWS = {
    "mmcv": "mmcv's formula",
    "by_map": "grid_sample by map",
    "bags": "pe_dense: embedding bags",
    "triton": "pe_dense: Triton",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=912, help="side of the image in px")
    parser.add_argument("--dtype", default="float32", help="of the values: float32, bfloat16 or float16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/deform_attn.json"))
    args = parser.parse_args()

    from utils import in_turns, peak_memory, summary, write_table

    case = (args.size, args.dtype, args.device, args.threads)
    names = [name for name in ROWS if name != "triton" or args.device != "cpu"]
    table = []
    for train in (False, True):
        seconds = in_turns({name: make_run(name, train, *case) for name in names}, args.repeats, args.device)
        for name, values in summary(seconds, peer="mmcv").items():
            memory = peak_memory(make_run, name, train, *case, device=args.device)
            work = "forward and backward" if train else "forward"
            table.append(dict(work=work, what=ROWS[name], **values, peak_mb=round(memory)))
    write_table(table, args.output, **{key: str(value) for key, value in vars(args).items()})


def make_run(name: str, train: bool, size: int, dtype: str, device: str, threads: int) -> Callable[[], None]:
    """Return a function that runs the sampling of one layer; all rows use the same tensors."""
    import torch

    torch.set_num_threads(threads)
    value, shapes, starts, locations, weights, grad = (tensor.to(device) for tensor in encoder_inputs(size))
    value, grad = (tensor.to(getattr(torch, dtype)) for tensor in (value, grad))
    leaves = [tensor.requires_grad_(train) for tensor in (value, locations, weights)]
    attend = way(name)

    def run():
        with torch.set_grad_enabled(train):
            output = attend(leaves[0], shapes, starts, leaves[1], leaves[2])
        if train:
            output.backward(grad.to(output.dtype))
            for leaf in leaves:
                leaf.grad = None

    return run


def encoder_inputs(size: int) -> tuple:
    """Create value, shapes, starts, locations, weights and the output's gradient of an encoder layer for one image."""
    import torch

    middle = size // 16
    sides = [2 * middle, middle, middle // 2]
    for _ in range(2):
        sides.append((sides[-1] + 1) // 2)
    shapes = torch.tensor([(side, side) for side in sides])
    counts = shapes.prod(1)
    tokens = int(counts.sum())
    generator = torch.Generator().manual_seed(0)
    own = [torch.cartesian_prod(*[(torch.arange(side) + 0.5) / side] * 2).flip(1) for side in sides]
    offsets = torch.randn(1, tokens, 8, 5, 4, 2, generator=generator) * 3 / shapes[:, None]
    return (
        torch.randn(1, tokens, 8, 32, generator=generator),
        shapes,
        counts.cumsum(0) - counts,
        torch.cat(own)[None, :, None, None, None] + offsets,
        torch.randn(1, tokens, 8, 20, generator=generator).softmax(-1).unflatten(-1, (5, 4)),
        torch.randn(1, tokens, 256, generator=generator),
    )


def way(name: str) -> Callable:
    """Return the function of value, shapes, starts, locations and weights of a row."""
    import pe_dense  # noqa: F401

    if name in ("mmcv", "by_map"):
        from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch as formula
        from torch.utils.checkpoint import checkpoint

        def whole(value, shapes, starts, locations, weights):
            return formula(value.float(), shapes, locations, weights)

        def by_map(value, shapes, starts, locations, weights):
            parts = [
                checkpoint(formula, part.float(), shapes[i : i + 1], locations[:, :, :, i : i + 1],
                           weights[:, :, :, i : i + 1], use_reentrant=False)
                for i, part in enumerate(value.split(shapes.prod(1).tolist(), 1))
            ]  # fmt: skip
            return sum(parts)

        return whole if name == "mmcv" else by_map
    import os

    from pe_dense.ops.deform_attn import SWITCH, DeformAttnFunction

    def ours(*inputs):
        os.environ[SWITCH] = "1" if name == "triton" else "0"
        return DeformAttnFunction.apply(*inputs)

    return ours


if __name__ == "__main__":
    main()
