"""Parts of a block whose training keeps less in memory than PyTorch's own, for the same results.

Of the 18 tensors of a token's width that a block's backward pass would keep, six are not needed: turned queries and
keys can stand in the place of the others, and the GELU's output, four times as wide, is cheap to make again.
Under `torch.compile` the plain form is used: its partitioner finds such savings itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pe_dense.tower.rope import RotaryTable, rotate

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def turn_queries_and_keys(qkv: Tensor, table: RotaryTable) -> Tensor:
    """Turn queries and keys by their token's angles; values stay.

    Args:
        qkv: (B, N, 3, heads, head_dim); overwritten.
        table: cosines and sines (N, head_dim / 2).

    Returns:
        (B, N, 3, heads, head_dim).
    """
    if torch.compiler.is_compiling():
        return torch.cat([rotate(qkv[:, :, :2], table), qkv[:, :, 2:]], dim=2)
    return _Turn.apply(qkv, *table)


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer on the GELU (exact) of x.

    Args:
        x: (..., D).
        weight: (C, D).
        bias: (C,).

    Returns:
        (..., C).
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.linear(F.gelu(x), weight, bias)
    return _GELULinear.apply(x, weight, bias)


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.mark_dirty(qkv)
        _turn_in_place(qkv[:, :, :2], cos, sin)
        return qkv

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        cos, sin = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)
        _turn_in_place(grad[:, :, :2], cos, -sin)
        return grad, None, None


def _turn_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn neighbouring channel pairs of x (B, N, ..., head_dim), as complex numbers where its precision has them."""
    if x.dtype not in (torch.float32, torch.float64):
        x.copy_(rotate(x, RotaryTable(cos, sin)))
        return
    shape = (x.shape[1],) + (1,) * (x.dim() - 3) + (x.shape[-1] // 2,)
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(torch.complex(cos, sin).to(_COMPLEX[x.dtype]).view(shape))


class _GELULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            # Under autocast x and grad are in half precision, the weight is not.
            grad_x = torch.ops.aten.gelu_backward((rows @ weight.to(grad.dtype)).view_as(x), x)
        if ctx.needs_input_grad[1]:
            grad_weight = (rows.t() @ F.gelu(x).flatten(0, -2)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0, dtype=weight.dtype)
        return grad_x, grad_weight, grad_bias
