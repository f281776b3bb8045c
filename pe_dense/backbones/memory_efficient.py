"""Memory-efficient attention projection and MLP, with the same results as the plain functions.

A block would save 18 activation tensors of the token width for its backward pass. Six of them are avoided: queries and
keys are rotated in place, and the output of the GELU, four times as wide, is recomputed because that is cheap. In the
backward pass, the gradients of queries, keys and values are written directly into the one tensor that the projection
before them needs. On a CPU, half precision is optimized for time instead: the output of the GELU is kept, and queries,
keys and values are written in the layout of the attention's matrix products.

Under ``torch.compile`` the plain functions are used, because its partitioner finds such savings itself; they are also
used if a module or a weight has been replaced, hooked or parametrized. The custom functions do not support double
backward or ``torch.func`` transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as nn_module

from pe_dense.backbones.attention import RotaryTable, apply_rope

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def qkv_with_rope(
    x: Tensor, weight: Tensor, bias: Tensor, heads: int, table: RotaryTable | None, *, memory_efficient: bool = True
) -> tuple[Tensor, ...]:
    """Project tokens to queries, keys and values, and apply rotary position embedding to queries and keys.

    Args:
        x: (B, N, C).
        weight: (3 C, C). A tensor subclass (a quantized or sharded weight) is only used by ``F.linear``.
        bias: (3 C,).
        heads: number of heads, which divide the C channels evenly.
        table: cosines and sines (N, head_dim / 2); None for no rotation.
        memory_efficient: whether the custom function may be used.

    Returns:
        queries, keys and values, each (B, heads, N, head_dim).
    """
    if table is not None and memory_efficient and _is_eager() and _is_plain(weight) and _is_plain(bias):
        return _ProjectAndTurn.apply(x, weight, bias, heads, *table)
    return split_with_rope(F.linear(x, weight, bias), heads, table)


def split_with_rope(qkv: Tensor, heads: int, table: RotaryTable | None) -> tuple[Tensor, ...]:
    """Split projected tokens (B, N, 3 C); see :func:`qkv_with_rope` for the other arguments and the result."""
    qkv = _split(qkv, heads)
    if table is not None:
        qkv = torch.cat([apply_rope(qkv[:, :, :2], table), qkv[:, :, 2:]], dim=2)
    return qkv.permute(2, 0, 3, 1, 4).unbind()


def gelu_linear(x: Tensor, linear: nn.Module, *, memory_efficient: bool = True) -> Tensor:
    """Apply the exact GELU, then a linear layer.

    The layer is called as a module unless it is an untouched ``nn.Linear``, so that forward hooks, adapters (LoRA) and
    quantized replacements take effect.

    Args:
        x: (..., D).
        linear: module from (..., D) to (..., C).
        memory_efficient: whether the custom function may be used.

    Returns:
        (..., C).
    """
    if memory_efficient and _is_eager() and torch.is_grad_enabled() and _is_untouched_linear(linear):
        return _GELULinear.apply(x, linear.weight, linear.bias)
    return linear(F.gelu(x))


def _is_eager() -> bool:
    return not torch.compiler.is_compiling()


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is a plain dense tensor or parameter, not a subclass with custom operators."""
    return type(tensor) in (Tensor, nn.Parameter)


def _is_untouched_linear(module: nn.Module) -> bool:
    """Return whether calling a module is equivalent to ``F.linear`` with its weight and bias.

    Parametrizations and quantized layers change the type, pruning and weight normalization add hooks, and some adapters
    replace ``forward`` of the instance.
    """
    return (
        type(module) is nn.Linear
        and "forward" not in module.__dict__
        and not any(getattr(module, hooks) for hooks in _HOOKS)
        and not any(getattr(nn_module, f"_global{hooks}") for hooks in _HOOKS)
        and type(module.weight) is nn.Parameter
        and type(module.bias) is nn.Parameter
    )


class _ProjectAndTurn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, heads: int, cos: Tensor, sin: Tensor):
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(
                torch.get_autocast_dtype(x.device.type)
            )  # the input of the linear layer under autocast, saved in that dtype
        ctx.save_for_backward(x, weight, cos, sin)
        qkv = _split(F.linear(x, weight, bias), heads)
        if qkv.device.type == "cpu" and qkv.dtype not in _COMPLEX:
            # Written in the layout of the matrix products that follow, which would copy each of them otherwise.
            rotated = qkv.new_empty(3, len(x), heads, x.shape[1], qkv.shape[-1])
            out = rotated.permute(1, 3, 0, 2, 4)
            _rotate(qkv[:, :, :2], cos, sin, out=out[:, :, :2])
            out[:, :, 2] = qkv[:, :, 2]
            return rotated.unbind()
        _rotate(qkv[:, :, :2], cos, sin, out=qkv[:, :, :2])
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        x, weight, cos, sin = ctx.saved_tensors
        q, k, v = (grad.transpose(1, 2) for grad in grads)  # (B, N, heads, head_dim)
        grad = v.new_empty(*v.shape[:2], 3, *v.shape[2:])
        _rotate(q, cos, -sin, out=grad[:, :, 0])
        _rotate(k, cos, -sin, out=grad[:, :, 1])
        grad[:, :, 2] = v
        gradients = _linear_gradients(ctx.needs_input_grad, grad.flatten(2), lambda: x, weight)
        return *gradients, None, None, None


def _split(qkv: Tensor, heads: int) -> Tensor:
    """Split the projection: (B, N, 3 C) -> (B, N, 3, heads, head_dim)."""
    return qkv.unflatten(2, (3, heads, -1))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Rotate neighboring channel pairs of x (B, N, ..., head_dim) into ``out``, which may be x itself.

    Pairs are multiplied as complex numbers, half precision in float32.
    """
    shape = (x.shape[1],) + (1,) * (x.dim() - 3) + (x.shape[-1] // 2,)
    exact = x if x.dtype in _COMPLEX else x.to(torch.float32, memory_format=torch.contiguous_format)
    factors = torch.complex(cos, sin).to(_COMPLEX[exact.dtype]).view(shape)
    if exact is x:
        torch.mul(_as_complex(x if x.stride(-1) == 1 else x.contiguous()), factors, out=_as_complex(out))
    else:
        _as_complex(exact).mul_(factors)
        out.copy_(exact)


def _as_complex(x: Tensor) -> Tensor:
    """View pairs of channels as complex numbers: (..., D) -> (..., D / 2)."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


class _GELULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        activated = F.gelu(x)
        # On a CPU, GELU is not cheap compared with matrix products in bfloat16, and tensors are half as large.
        ctx.save_for_backward(x, weight, *([activated] if x.device.type == "cpu" and x.dtype not in _COMPLEX else []))
        return F.linear(activated, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, *activated = ctx.saved_tensors
        make_input = (lambda: activated[0]) if activated else (lambda: F.gelu(x))
        of_gelu, *others = _linear_gradients(ctx.needs_input_grad, grad, make_input, weight)
        return None if of_gelu is None else torch.ops.aten.gelu_backward(of_gelu, x), *others


def _linear_gradients(
    needed: Sequence[bool], grad: Tensor, make_input: Callable[[], Tensor], weight: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the required gradients of a linear layer's input (..., D), weight (C, D) and bias.

    Under autocast the input and ``grad`` (..., C) are in half precision, but the weight is not.
    """
    rows = grad.flatten(0, -2)
    of_input = of_weight = of_bias = None
    if needed[0]:
        of_input = (rows @ weight.to(grad.dtype)).unflatten(0, grad.shape[:-1])
    if needed[1]:
        of_weight = (rows.t() @ make_input().flatten(0, -2)).to(weight.dtype)
    if needed[2]:
        of_bias = rows.sum(0, dtype=weight.dtype)
    return of_input, of_weight, of_bias
