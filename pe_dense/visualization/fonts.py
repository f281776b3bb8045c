"""Fonts for text in any script."""

from __future__ import annotations

import logging
import unicodedata
from functools import lru_cache
from pathlib import Path

from mmengine.logging import print_log
from PIL import ImageFont


def font_for(text: object, size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str]:
    """Choose a font that has all characters of a text.

    Pillow's own font for ASCII, else DejaVu Sans, which comes with matplotlib, else the first installed font that has
    them. Characters that no font has are escaped (``\\u732b``), so that names stay distinct, and this is logged once.

    Args:
        text: anything with a string form. Line breaks become spaces, invisible characters are left out.
        size: in pixels.

    Returns:
        the font, and the text to draw with it.
    """
    text = _printable(str(text))
    if text.isascii():
        return ImageFont.load_default(size=size), text
    for path in _fonts():
        if set(text) <= _characters(path) and (font := _load(path, size)):
            return font, text
    path = _bundled()
    known = _characters(path)
    missing = "".join(dict.fromkeys(character for character in text if character not in known))
    _say_missing(missing)
    drawn = "".join(c if c in known else c.encode("ascii", "backslashreplace").decode() for c in text)
    return _load(path, size) or ImageFont.load_default(size=size), drawn


def _printable(text: str) -> str:
    visible = (c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return " ".join("".join(visible).split())


@lru_cache(maxsize=1)
def _fonts() -> tuple[str, ...]:
    """Paths of all fonts, the bundled one first. Where several have a text, regular ones come before bold ones."""
    from matplotlib.font_manager import findSystemFonts

    installed = sorted(findSystemFonts(), key=lambda path: ("regular" not in path.lower(), path))
    return (_bundled(), *installed)


def _bundled() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache(maxsize=4096)
def _characters(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a font that FreeType cannot open
        return frozenset()


@lru_cache(maxsize=64)
def _load(path: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError):  # bitmap fonts have few sizes
        return None


@lru_cache(maxsize=256)
def _say_missing(characters: str) -> None:
    names = characters.encode("ascii", "backslashreplace").decode()
    print_log(
        f"No installed font has {names}: drawn as escapes. Install one that has them, such as Noto Sans CJK",
        "current",
        logging.WARNING,
    )
