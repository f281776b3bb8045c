"""Faster backbones: compiled blocks and bfloat16 inference, the options ``--compile`` and ``--dtype`` of the tools."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import torch
from mmengine.logging import print_log
from torch import nn

from pe_dense.backbones.base import Backbone
from pe_dense.engine.optimizers.cpu_amp import bfloat16_instructions
from pe_dense.utils.errors import ConfigError, first_line

DTYPES = ("float32", "bfloat16", "auto")


def accelerate(model: nn.Module, *, compiled: bool = False, dtype: str = "float32") -> None:
    """Compile the blocks of a model's backbones, and run them in bfloat16 outside of training.

    Only the blocks are changed, which are nearly all of the work: heads, patch embedding and norms stay as they are,
    and so do parameters, state dicts and copies of the model. In bfloat16 the blocks run under autocast, and the sums
    of their outputs stay in float32. Blocks have the same code, which is compiled once; PyTorch keeps the result for
    later runs in its own cache (``TORCHINDUCTOR_CACHE_DIR``). Where compilation fails, a line is logged and the blocks
    run as usual.

    Args:
        model: a model, already on its device.
        compiled: compile the blocks.
        dtype: of the blocks outside of training: 'float32' for no change, 'bfloat16', or 'auto' for bfloat16 where
            the device has instructions for it. A CPU without them runs in float32, as emulation would be slower.

    Raises:
        ConfigError: for another dtype, or a model without a backbone of this project.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}, must be one of {', '.join(DTYPES)}")
    half = dtype != "float32" and _has_bfloat16(model, announce=dtype == "bfloat16")
    if not compiled and not half:
        return
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    if not backbones:
        raise ConfigError(
            "the model has no backbone of this project to compile or run in bfloat16: leave out --compile and --dtype"
        )
    state = _State(compiled)
    for backbone in backbones:
        for block in backbone.fsdp_units():
            # `nn.Module.compile` sets this attribute, too, which is left out of copies and files.
            block._compiled_call_impl = _BlockCall(block, state, half)


def _has_bfloat16(model: nn.Module, *, announce: bool) -> bool:
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    has = torch.cuda.is_bf16_supported() if device == "cuda" else bfloat16_instructions() is not None
    if not has and announce:
        print_log(
            f"this {device} has no bfloat16 instructions: the backbone runs in float32", "current", logging.WARNING
        )
    return has


class _State:
    """Whether blocks are compiled; shared by all of them, so that a failure is logged once."""

    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled

    def give_up(self, error: Exception) -> None:
        error = getattr(error, "inner_exception", error)  # of the compiler, without advice for its developers
        print_log(
            f"the backbone runs without compilation: {type(error).__name__}: {first_line(error):.200}",
            "current",
            logging.WARNING,
        )
        self.compiled = False


class _BlockCall:
    """Call of a block: compiled, and under autocast in evaluation mode."""

    def __init__(self, block: nn.Module, state: _State, half: bool) -> None:
        self._block, self._state, self._half = block, state, half
        self._compiled = torch.compile(block._call_impl, dynamic=None) if state.compiled else None

    def __call__(self, *arguments, **options):
        # A failed compilation raises errors of several unrelated classes; an error of the block itself occurs again.
        with self._context(arguments):
            if self._state.compiled:
                try:
                    return self._compiled(*arguments, **options)
                except Exception as error:
                    result = self._block._call_impl(*arguments, **options)
                    self._state.give_up(error)
                    return result
            return self._block._call_impl(*arguments, **options)

    def _context(self, arguments: tuple):
        if not self._half or self._block.training:
            return nullcontext()
        return torch.autocast(arguments[0].device.type, torch.bfloat16)
