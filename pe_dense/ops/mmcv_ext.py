"""Replacement of ``mmcv._ext`` for mmcv installations without compiled operators.

It provides the operators that detection and segmentation need, with the names and calling conventions of mmcv: buffers
for outputs and gradients are allocated by the caller and written in place. Any other operator can be looked up, because
``mmcv.ops`` does so on import, but raises an error when it is called.
"""

from collections.abc import Callable
from typing import NoReturn

from pe_dense.ops.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from pe_dense.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    deform_roi_pool_backward,
    deform_roi_pool_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from pe_dense.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from pe_dense.ops.neighborhood import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
    masked_col2im_forward,
    masked_im2col_forward,
    psamask_backward,
    psamask_forward,
)
from pe_dense.ops.nms import bbox_overlaps, nms, nms_match, softnms
from pe_dense.ops.roi_align import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    "bbox_overlaps",
    "carafe_backward",
    "carafe_forward",
    "carafe_naive_backward",
    "carafe_naive_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "deform_roi_pool_backward",
    "deform_roi_pool_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "masked_col2im_forward",
    "masked_im2col_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "psamask_backward",
    "psamask_forward",
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

# mmcv's setup.py compiles the operators if it can import torch, hence --no-build-isolation, and uses CUDA if it finds a
# GPU or FORCE_CUDA=1. It compiles as C++17, which the headers of torch 2.14 do not support.
_HELP = (
    "mmcv's operator '{name}' is not available: this mmcv has no compiled operators, and pe_dense replaces only "
    "those that its own models use; everything in pe_dense works without '{name}'. To compile all of them, "
    "with a C++ compiler, setuptools, wheel, packaging and a torch that still builds as C++17 (2.14 does not): "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation --no-binary onedl-mmcv onedl-mmcv "
    "(for CUDA also nvcc, of the CUDA version of torch, and FORCE_CUDA=1 on a machine without a visible GPU)"
)


def get_compiler_version() -> str:
    """Return the compiler version for environment reports: the operators are not compiled."""
    return "not compiled (replaced by pe_dense)"


def get_compiling_cuda_version() -> str:
    """Return the CUDA compiler version for environment reports: the operators are not compiled."""
    return "not compiled (replaced by pe_dense)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(_HELP.format(name=name))

    missing.__name__ = missing.__qualname__ = name
    return missing
