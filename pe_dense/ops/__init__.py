"""What mmcv's compiled operators would give, on PyTorch and torchvision.

Importing this package costs nothing: neither torch nor mmcv is imported before somebody imports ``mmcv._ext``.
"""

from pe_dense.ops.import_hook import install_mmcv_ext

__all__ = ["install_mmcv_ext"]
