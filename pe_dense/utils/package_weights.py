"""Weights that come with the package: PE-Mini, a PE that was trained on generated scenes (docs/miniature.md).

Files are float16 safetensors in the published layouts, with their provenance in the metadata.
"""

from __future__ import annotations

import re
from pathlib import Path

from pe_dense.utils.errors import InputError

PACKAGE_PREFIX = "pe-mini://"
_FOLDER = Path(__file__).parents[1] / "weights"
# What configs build from the name of a tower, `hf://facebook/<name>`, is also found in the package.
_NAME = re.compile(r"(?:pe-mini://|hf://facebook/PE-Mini-)(?P<tower>.*)", re.IGNORECASE)
FILES = dict(core="pe_mini_core.safetensors", spatial="pe_mini_spatial.safetensors")


def published_weights(arch: str | dict) -> str:
    """Return where the published weights of a tower are: ``hf://facebook/<arch>``, or ``pe-mini://core``."""
    if isinstance(arch, str) and arch.startswith("PE-Mini-"):
        return PACKAGE_PREFIX + arch.removeprefix("PE-Mini-").lower()
    return f"hf://facebook/{arch}"  # of fields instead of a name: no file, but a text for errors


def find_package_weights(source: str) -> Path | None:
    """Return the path of weights in the package.

    Args:
        source: ``pe-mini://core`` (both towers), ``pe-mini://spatial``, or anything else.

    Returns:
        the path; None if the name is not of that form.

    Raises:
        ValueError: for another name after ``pe-mini://``.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        return None
    name = FILES.get(match["tower"].lower())
    if name is None:
        raise InputError(f"{source}: weights in the package are {', '.join(PACKAGE_PREFIX + tower for tower in FILES)}")
    return _FOLDER / name
