"""The module that Python imports as ``mmcv._ext`` where mmcv came without compiled operators.

It offers the operators that detection and segmentation need, under mmcv's names and calling conventions: buffers
for outputs and gradients are allocated by the caller and filled in place. Every other operator can be looked up,
since ``mmcv.ops`` does so on import, and raises once it is called.
"""

from collections.abc import Callable
from typing import NoReturn

from pe_dense.ops.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from pe_dense.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from pe_dense.ops.nms import bbox_overlaps, nms, nms_match, softnms
from pe_dense.ops.roi_align import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    "bbox_overlaps",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
]

# mmcv's setup.py compiles whenever it can import torch, hence --no-build-isolation, and takes CUDA where it sees a
# GPU or FORCE_CUDA=1. It asks for C++17, which the headers of torch 2.14 refuse.
_HELP = (
    "mmcv's operator '{name}' is not available: this mmcv came without compiled operators, and pe_dense stands in "
    "only for those that its own models use; everything in pe_dense works without '{name}'. To compile them all, "
    "with a C++ compiler, setuptools, wheel, packaging and a torch that still builds as C++17 (2.14 does not): "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation --no-binary onedl-mmcv onedl-mmcv "
    "(for CUDA also nvcc, of the CUDA version of torch, and FORCE_CUDA=1 where the machine shows no GPU)"
)


def get_compiler_version() -> str:
    """The compiler of the operators, as environment reports print it: there is none."""
    return "not compiled (pe_dense's stand-in)"


def get_compiling_cuda_version() -> str:
    """The CUDA version of the operators, as environment reports print it: there is none."""
    return "not compiled (pe_dense's stand-in)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(_HELP.format(name=name))

    missing.__name__ = missing.__qualname__ = name
    return missing
