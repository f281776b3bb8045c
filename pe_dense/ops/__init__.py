"""Replacement of mmcv's compiled operators (``mmcv._ext``), implemented with PyTorch, torchvision and Triton.

Importing this package is cheap: torch and mmcv are only imported when ``mmcv._ext`` is imported.
"""

from pe_dense.ops.import_hook import install_mmcv_ext

__all__ = ["install_mmcv_ext"]
