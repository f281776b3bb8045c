"""Score thresholds, one for all classes or one per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from pe_dense.utils.errors import InputError

Thresholds = float | Mapping[str, float]
OTHERS = "*"  # key of the threshold of the classes that are not named


def thresholds_of(threshold: Thresholds, names: Sequence[str]) -> np.ndarray:
    """Return the thresholds (N,) float32 of objects with these class names.

    Args:
        threshold: one for all classes, or ``{class name: threshold}``, in which ``"*"`` is that of all other classes (0
            without it).
        names: N class names.
    """
    if not isinstance(threshold, Mapping):
        return np.full(len(names), threshold, np.float32)
    usual = threshold.get(OTHERS, 0.0)
    return np.array([threshold.get(name, usual) for name in names], np.float32)


def parse_thresholds(text: str) -> Thresholds:
    """Parse a threshold of the command line: ``0.5``, or by class ``person=0.6,car=0.4``, with ``0.3`` for the others.

    Raises:
        InputError: for a number outside of 0 to 1, or a class that is named twice.
    """
    by_class: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else OTHERS
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1 or not name or "_" in value:
            raise InputError(
                f"{part.strip()!r} is not a threshold from 0 to 1, such as 0.5, or one of a class, such as person=0.6"
            )
        if name in by_class:
            raise InputError(f"{text!r} has two thresholds {'for all classes' if name == '*' else f'of {name}'}")
        by_class[name] = threshold
    return by_class[OTHERS] if by_class.keys() == {OTHERS} else by_class


def check_thresholds(threshold: Thresholds | None, classes: Sequence[str]) -> None:
    """Check that the classes of thresholds exist.

    Raises:
        InputError: naming the first unknown class.
    """
    names = threshold if isinstance(threshold, Mapping) else ()
    for name in names:
        if name != OTHERS and name not in classes:
            close = get_close_matches(name, list(classes), n=1)
            hint = f"; did you mean {close[0]}?" if close else f": {', '.join(list(classes)[:8])}, ..."
            raise InputError(f"threshold of {name!r}, which is not one of the model's {len(classes)} classes{hint}")
