"""Replacement of mmcv's compiled operators (``mmcv._ext``), implemented with PyTorch, torchvision and Triton.

An import hook provides it where mmcv has no compiled operators, and replacements of ``panopticapi`` and ``lap`` where
those packages are not installed. Importing this package is cheap: torch and mmcv are only imported when ``mmcv._ext``
is imported.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path

from pe_dense.ops.late_imports import LateFinder

_REPLACEMENT = Path(__file__).with_name("mmcv_ext.py")
_PANOPTIC = Path(__file__).with_name("panopticapi.py")
_ASSIGNMENT = Path(__file__).with_name("lap.py")
_REPLACEMENTS = {
    "mmcv._ext": _REPLACEMENT,
    "lap": _ASSIGNMENT,
    "panopticapi": _PANOPTIC,
    "panopticapi.evaluation": _PANOPTIC,
    "panopticapi.utils": _PANOPTIC,
}


class ReplacementFinder(MetaPathFinder):
    """Meta path finder that loads ``mmcv._ext``, ``panopticapi`` and ``lap`` from the files of this package."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        """Return the module spec of the replacement, or None for any other module."""
        if fullname not in _REPLACEMENTS:
            return None
        submodules = [] if fullname == "panopticapi" else None  # none on the disk: this finder has them
        return spec_from_file_location(fullname, _REPLACEMENTS[fullname], submodule_search_locations=submodules)


def install_replacements() -> None:
    """Install the import hook, so that they can be imported where they are missing.

    The finder is appended to ``sys.meta_path``, so installed ones take precedence. Repeated calls have no effect.
    """
    if not any(isinstance(finder, ReplacementFinder) for finder in sys.meta_path):
        sys.meta_path.append(ReplacementFinder())
        sys.meta_path.insert(0, LateFinder())


def is_replaced() -> bool:
    """Return whether ``mmcv._ext`` is the replacement, because mmcv has no compiled operators."""
    spec = find_spec("mmcv._ext")
    return spec is not None and spec.origin == str(_REPLACEMENT)
