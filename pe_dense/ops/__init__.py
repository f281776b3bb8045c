"""Replacement of mmcv's compiled operators (``mmcv._ext``), implemented with PyTorch, torchvision and Triton.

An import hook provides it where mmcv has no compiled operators. Importing this package is cheap: torch and mmcv are
only imported when ``mmcv._ext`` is imported.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path

_REPLACEMENT = Path(__file__).with_name("mmcv_ext.py")


class MMCVExtFinder(MetaPathFinder):
    """Meta path finder that loads ``mmcv._ext`` from ``pe_dense/ops/mmcv_ext.py``."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        """Return the module spec of the replacement, or None for any other module."""
        return spec_from_file_location(fullname, _REPLACEMENT) if fullname == "mmcv._ext" else None


def install_mmcv_ext() -> None:
    """Install the import hook, so that ``import mmcv._ext`` works if mmcv has no compiled operators.

    The finder is appended to ``sys.meta_path``, so a compiled ``_ext`` takes precedence. Repeated calls have no effect.
    """
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())


def is_replaced() -> bool:
    """Return whether ``mmcv._ext`` is the replacement, because mmcv has no compiled operators."""
    spec = find_spec("mmcv._ext")
    return spec is not None and spec.origin == str(_REPLACEMENT)
