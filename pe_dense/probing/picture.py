"""Pictures of an image beside a map of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

READABLE_SIDE = 480  # px; smaller images are enlarged before drawing
_LINE, _MARGIN = 22, 6  # px
_BAR = 280  # px, a colour bar's length


def beside(pixels: np.ndarray, drawn: np.ndarray) -> Image.Image:
    """Put an image and a drawing of it side by side, small ones enlarged by a whole factor.

    Args:
        pixels, drawn: (H, W, 3) uint8.
    """
    factor = max(-(-READABLE_SIDE // max(pixels.shape[:2])), 1)
    height, width = (factor * side for side in pixels.shape[:2])
    canvas = Image.new("RGB", (2 * width + _MARGIN, height), "white")
    canvas.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    canvas.paste(Image.fromarray(drawn).resize((width, height), Image.Resampling.NEAREST), (width + _MARGIN, 0))
    return canvas


def with_legend(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Add rows of names with their colours below."""
    font = ImageFont.load_default(size=14)
    places, x, row = [], _MARGIN, 0
    for name, _ in entries:
        width = int(font.getlength(name)) + _LINE + 2 * _MARGIN
        if x + width > picture.width and x > _MARGIN:
            x, row = _MARGIN, row + 1
        places.append((x, picture.height + _MARGIN + row * _LINE))
        x += width
    canvas = _extended(picture, (row + 1) * _LINE + 2 * _MARGIN)
    draw = ImageDraw.Draw(canvas)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y + 2, x + 14, y + 16), fill=tuple(colour), outline="black")
        draw.text((x + _LINE, y), name, fill="black", font=font)
    return canvas


def with_bar(picture: Image.Image, colours: np.ndarray, low: str, high: str) -> Image.Image:
    """Add a colour bar below.

    Args:
        picture: any.
        colours: (N, 3) uint8, from ``low`` to ``high``.
        low, high: what stands at the bar's ends.
    """
    font = ImageFont.load_default(size=14)
    canvas = _extended(picture, _LINE + 2 * _MARGIN)
    draw = ImageDraw.Draw(canvas)
    x, y = 2 * _MARGIN + int(font.getlength(low)), picture.height + _MARGIN
    canvas.paste(Image.fromarray(colours[None]).resize((_BAR, _LINE - 4)), (x, y))
    draw.text((_MARGIN, y), low, fill="black", font=font)
    draw.text((x + _BAR + _MARGIN, y), high, fill="black", font=font)
    return canvas


def _extended(picture: Image.Image, height: int) -> Image.Image:
    canvas = Image.new("RGB", (picture.width, picture.height + height), "white")
    canvas.paste(picture)
    return canvas
