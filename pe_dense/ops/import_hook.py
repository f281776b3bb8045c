"""Makes the stand-in for ``mmcv._ext`` known to the import system."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path

_STAND_IN = Path(__file__).with_name("mmcv_ext.py")


class MMCVExtFinder(MetaPathFinder):
    """Finds ``mmcv._ext``, and nothing else, in ``pe_dense/ops/mmcv_ext.py``."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        """Returns the specification of the stand-in, or None for every other module."""
        return spec_from_file_location(fullname, _STAND_IN) if fullname == "mmcv._ext" else None


def install_mmcv_ext() -> None:
    """Lets ``import mmcv._ext`` succeed where mmcv came without compiled operators.

    The finder goes to the end of ``sys.meta_path``: Python asks it last, so a compiled ``_ext`` always wins.
    Calling this again changes nothing.
    """
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())


def stands_in() -> bool:
    """Whether ``mmcv._ext`` is, or would be, the stand-in: mmcv came without compiled operators."""
    spec = find_spec("mmcv._ext")
    return spec is not None and spec.origin == str(_STAND_IN)
