"""Run the Triton kernels of deformable attention on the CPU in Triton's interpreter, and print their errors.

A program of its own: Triton decides on the interpreter when it is imported. On stdout JSON, one entry per case: for
the output and the gradients of value, locations and weights their types and their largest distance from the formula.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from pe_dense.ops import deform_attn_torch, deform_attn_triton

NAMES = ("output", "value", "locations", "weights")


def inputs(sizes, batch=1, queries=5, heads=2, channels=8, points=2, dtypes=("float32",) * 4, spread=1.6):
    """Value, shapes, starts, locations (some outside of the maps), weights and the output's gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor(sizes)
    counts = shapes.prod(1)
    grid = (batch, queries, heads, len(sizes), points)
    value = torch.randn(batch, int(counts.sum()), heads, channels, generator=generator)
    locations = torch.rand(*grid, 2, generator=generator) * spread - (spread - 1) / 2
    weights = torch.rand(grid, generator=generator)
    grad = torch.randn(batch, queries, heads * channels, generator=generator)
    value, locations, weights, grad = (
        tensor.to(getattr(torch, dtype))
        for tensor, dtype in zip((value, locations, weights, grad), dtypes, strict=True)
    )
    return value, shapes, counts.cumsum(0) - counts, locations, weights, grad


CASES = dict(
    one_map=inputs([(3, 5)]),
    maps=inputs([(3, 5), (2, 2), (1, 4)], batch=2, queries=3),
    many_rows=inputs([(4, 4), (2, 2)], batch=2, queries=40, channels=16, points=1),  # several programs
    odd_channels=inputs([(3, 3)], channels=6, heads=3),
    far_outside=inputs([(3, 5), (2, 2)], spread=6.0),
    no_queries=inputs([(3, 5)], queries=0),
    bfloat16=inputs([(3, 5), (2, 2)], dtypes=("bfloat16",) * 4),
    autocast=inputs([(3, 5), (2, 2)], dtypes=("bfloat16", "float32", "bfloat16", "bfloat16")),
    float16=inputs([(3, 5), (2, 2)], dtypes=("float16",) * 4),
)


def distances(value, shapes, starts, locations, weights, grad):
    given = (value, shapes, starts, locations, weights)
    ours = (deform_attn_triton.forward(*given), *deform_attn_triton.backward(*given, grad))
    exact = (*(tensor.float() if tensor.is_floating_point() else tensor for tensor in given), grad.float())
    expected = (deform_attn_torch.forward(*exact[:5]), *deform_attn_torch.backward(*exact))
    return {
        name: dict(
            dtype=str(mine.dtype).removeprefix("torch."),
            shape=list(mine.shape) == list(theirs.shape),
            off=(mine.float() - theirs).abs().max().item() if mine.numel() else 0.0,
            size=theirs.abs().max().item() if mine.numel() else 0.0,
        )
        for name, mine, theirs in zip(NAMES, ours, expected, strict=True)
    }


def not_finite():
    """Return whether a NaN location only affects its own query."""
    value, shapes, starts, locations, weights, grad = inputs([(3, 5)])
    locations[0, 1, 0, 0, 0, 0], locations[0, 2, 0, 0, 0, 1] = float("nan"), float("inf")
    found = deform_attn_triton.forward(value, shapes, starts, locations, weights)
    expected = deform_attn_torch.forward(value, shapes, starts, locations, weights)
    deform_attn_triton.backward(value, shapes, starts, locations, weights, grad)
    return torch.equal(found.isfinite(), expected.isfinite()) and bool(found[0, [0, 3, 4]].isfinite().all())


if __name__ == "__main__":
    deform_attn_triton.check("cpu")
    found = {name: distances(*case) for name, case in CASES.items()}
    sys.stdout.write(json.dumps(dict(found, not_finite=not_finite())))
