"""Checks of the arguments of open-vocabulary segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pe_dense.probing.sliding_window import complete_windows
from pe_dense.utils.errors import InputError


def checked_windows(test_cfg: Mapping | None) -> dict:
    """Check the windows' sizes in mmseg's ``test_cfg`` and complete them.

    Raises:
        InputError: naming the entry that is not usable.
    """
    for name in ("crop_size", "stride"):
        size = (test_cfg or {}).get(name)
        if size is None:
            if name == "crop_size" and (test_cfg or {}).get("mode") == "slide":
                raise InputError("test_cfg.mode 'slide' needs test_cfg.crop_size, such as (336, 336)")
            continue
        if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
            raise InputError(f"test_cfg.{name} is (height, width) in pixels, such as (336, 336), got {size!r}")
        for side in size:
            check_whole(f"test_cfg.{name}", side, 1)
    return complete_windows(test_cfg, ("whole", "slide"))


def check_whole(name: str, value, lowest: int) -> None:
    """Raise an :class:`InputError` if a value is not a whole number of at least ``lowest``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name}: {value!r} is not a whole number of at least {lowest}")


def check_range(name: str, value, lowest: float, highest: float) -> None:
    """Raise an :class:`InputError` if a value is neither None nor a number in a range."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise InputError(f"{name}: {value!r} is not a number from {lowest:g} to {highest:g}")
