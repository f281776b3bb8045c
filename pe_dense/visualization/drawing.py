"""Draw sheets of images with titles, heat maps, markers, masks, boxes and legends."""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from PIL import Image, ImageDraw, ImageFont


def font_for(text: object, size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str]:
    """Choose a font that contains all characters of a text.

    Pillow's default font is used for ASCII, otherwise DejaVu Sans of matplotlib, otherwise the first installed font
    that contains the characters. Characters without a font are escaped (``\\u732b``), so that names remain distinct,
    and a warning is logged once.

    Args:
        text: any object, converted by ``str``. Line breaks become spaces, invisible characters are removed.
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
    """List the paths of all fonts, the bundled one first, regular fonts before bold ones."""
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
        f"No installed font contains {names}: drawn as escapes. Install a font that does, such as Noto Sans CJK",
        "current",
        logging.WARNING,
    )


READABLE_SIDE = 480  # px; smaller images are enlarged before drawing
MARGIN = 12  # px
TITLE_WIDTH = 240  # px, maximum width of a title above a narrow picture
INK, PAPER = (30, 30, 30), (255, 255, 255)
Cell = tuple[str, Image.Image]  # title and image

# Distinct under the common color deficiencies: Okabe and Ito's palette, without its black.
MARKS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def fit_image(image: Image.Image, side: int) -> Image.Image:
    """Resize an image to a longer side of ``side`` px."""
    scale = side / max(image.size)
    size = tuple(max(round(length * scale), 1) for length in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def enlarge(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Resize a map (H, W, 3) uint8 to ``size`` (width, height) by nearest neighbor, so that tokens remain visible."""
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)


def overlay_heatmap(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Overlay an image with a bicubically upsampled heat map, from dark violet (0) to yellow (1).

    Args:
        image: RGB.
        values: (H, W); values outside of 0..1 are clipped.
    """
    smooth = Image.fromarray(values.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    heat = Image.fromarray(heat_colors(np.asarray(smooth)))
    return Image.blend(image.convert("L").convert("RGB"), heat, 0.65)


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Return the colors (..., 3) uint8 of heat maps for values (...); those outside of 0..1 are clipped."""
    from matplotlib import colormaps

    return colormaps["inferno"](values.clip(0, 1), bytes=True)[..., :3]


def mark(picture: Image.Image, places: Sequence[tuple[float, float]], *, numbered: bool = False) -> Image.Image:
    """Mark points (x, y in pixels) with circles, of one color, or numbered and each of its own color.

    Circles near the border are shifted inwards to be completely visible.
    """
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    radius = max(7, round(picture.height / 32))
    font = ImageFont.load_default(size=round(radius * 1.6))
    for number, (x, y) in enumerate(places):
        x, y = (_within(place, radius + 2, side) for place, side in zip((x, y), picture.size, strict=True))
        color = MARKS[number % len(MARKS)] if numbered else (255, 255, 255)
        draw.ellipse((x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2), fill=(0, 0, 0))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        if numbered:
            draw.text((x, y), str(number + 1), (0, 0, 0), font, anchor="mm")
        else:
            inner = radius / 2
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(200, 0, 0))
    return picture


def _within(place: float, margin: int, side: int) -> float:
    """Clip a coordinate to a margin from both ends of a side; return the middle of a side that is too short."""
    return side / 2 if side <= 2 * margin else min(max(place, margin), side - 1 - margin)


def join(
    left: Image.Image, right: Image.Image, pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]
) -> Image.Image:
    """Place two images side by side and connect pairs of points (x, y) by numbered lines."""
    gap = left.width + MARGIN
    sheet = Image.new("RGB", (gap + right.width, max(left.height, right.height)), PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (gap, 0))
    draw = ImageDraw.Draw(sheet)
    pairs = [(a, (b[0] + gap, b[1])) for a, b in pairs]
    for number, line in enumerate(pairs):
        draw.line(line, (0, 0, 0), width=4)
        draw.line(line, MARKS[number % len(MARKS)], width=2)
    for places in zip(*pairs, strict=True):
        sheet = mark(sheet, places, numbered=True)
    return sheet


def draw_sheet(rows: Sequence[Sequence[Cell]], heading: str = "") -> Image.Image:
    """Arrange images in rows and columns on a white background.

    Args:
        rows: titles and images. No space is reserved in a row without titles. Columns of narrow images are widened for
            their titles, up to 240 px; longer titles are shortened in the middle.
        heading: line above all rows.

    Returns:
        the sheet, in RGB.
    """
    widths = [max(row[i][1].width for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    size = min(max(13, round(max(widths) / 20)), 22)
    font, heading = font_for(heading, size)
    titles = [[font_for(title, size) for title, _ in row] for row in rows]
    for i, width in enumerate(widths):
        longest = max(row[i][0].getlength(row[i][1]) for row in titles if i < len(row))
        widths[i] = max(width, min(math.ceil(longest), TITLE_WIDTH))
    lefts = [MARGIN + sum(widths[:i]) + i * MARGIN for i in range(len(widths))]
    total = max(sum(widths) + MARGIN * (len(widths) + 1), math.ceil(font.getlength(heading)) + 2 * MARGIN)
    line = max(sum(font.getmetrics()) for font in [font, *(font for row in titles for font, _ in row)]) + 4
    tops, y = [], MARGIN + (line + 2 if heading else 0)
    for row in rows:
        tops.append(y + (line if any(title for title, _ in row) else 0))
        y = tops[-1] + max(picture.height for _, picture in row) + MARGIN
    sheet = Image.new("RGB", (total, y), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), heading, INK, font)
    for row, texts, top in zip(rows, titles, tops, strict=True):
        for (_, picture), (font, text), left, width in zip(row, texts, lefts, widths, strict=False):
            text = fit_text(text, font, width)
            draw.text((left + (width - font.getlength(text)) / 2, top - line), text, INK, font)
            sheet.paste(picture, (left + (width - picture.width) // 2, top))
    return sheet


def in_rows(cells: Sequence[Cell], columns: int) -> list[list[Cell]]:
    """Split a sequence of cells into rows."""
    return [list(cells[start : start + columns]) for start in range(0, len(cells), columns)]


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Shorten a text in the middle so that it is at most ``width`` px wide."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = text[: -(-kept // 2)] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return "…"


_LINE, _MARGIN = 22, 6  # px
_BAR = 280  # px, a color bar's length where there is room


def hstack(pixels: np.ndarray, drawn: np.ndarray) -> Image.Image:
    """Stack an image and a drawing of it horizontally; small images are enlarged by an integer factor.

    Args:
        pixels, drawn: (H, W, 3) uint8.
    """
    factor = max(-(-READABLE_SIDE // max(pixels.shape[:2])), 1)
    height, width = (factor * side for side in pixels.shape[:2])
    canvas = Image.new("RGB", (2 * width + _MARGIN, height), "white")
    canvas.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    canvas.paste(Image.fromarray(drawn).resize((width, height), Image.Resampling.NEAREST), (width + _MARGIN, 0))
    return canvas


def add_legend(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """Add a legend of names, in any script, and their colors below an image; long names are shortened."""
    room = picture.width - _LINE - 2 * _MARGIN
    names = [(font, fit_text(text, font, room)) for font, text in (font_for(name, 14) for name, _ in entries)]
    places, x, row = [], _MARGIN, 0
    for font, name in names:
        width = int(font.getlength(name)) + _LINE + 2 * _MARGIN
        if x + width > picture.width and x > _MARGIN:
            x, row = _MARGIN, row + 1
        places.append((x, picture.height + _MARGIN + row * _LINE))
        x += width
    canvas = _extended(picture, (row + 1) * _LINE + 2 * _MARGIN)
    draw = ImageDraw.Draw(canvas)
    for (_, color), (font, name), (x, y) in zip(entries, names, places, strict=True):
        draw.rectangle((x, y + 2, x + 14, y + 16), fill=tuple(color), outline="black")
        draw.text((x + _LINE, y), name, fill="black", font=font)
    return canvas


def add_colorbar(picture: Image.Image, colors: np.ndarray, low: str, high: str) -> Image.Image:
    """Add a color bar below an image.

    Args:
        picture: RGB image.
        colors: (N, 3) uint8, from ``low`` to ``high``.
        low, high: labels at the ends of the bar.
    """
    font = ImageFont.load_default(size=14)
    canvas = _extended(picture, _LINE + 2 * _MARGIN)
    draw = ImageDraw.Draw(canvas)
    x, y = 2 * _MARGIN + int(font.getlength(low)), picture.height + _MARGIN
    length = max(min(_BAR, picture.width - x - math.ceil(font.getlength(high)) - 2 * _MARGIN), 1)
    canvas.paste(Image.fromarray(colors[None]).resize((length, _LINE - 4)), (x, y))
    draw.text((_MARGIN, y), low, fill="black", font=font)
    draw.text((x + length + _MARGIN, y), high, fill="black", font=font)
    return canvas


def _extended(picture: Image.Image, height: int) -> Image.Image:
    canvas = Image.new("RGB", (picture.width, picture.height + height), "white")
    canvas.paste(picture)
    return canvas


_MASK_OPACITY = 0.5
_MIN_FONT, _MAX_FONT = 13, 72  # px


@dataclass(frozen=True)
class DrawnObject:
    """A detected object.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        text: label of the box, in any script.
        color: RGB.
        mask: (h, w) bool, the crop of its mask that starts at ``corner``; None for no mask.
        corner: row and column of the mask's first pixel.
    """

    box: tuple[float, float, float, float]
    text: str
    color: tuple[int, int, int]
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


def draw_objects(pixels: np.ndarray, objects: Sequence[DrawnObject], *, copy: bool = True) -> np.ndarray:
    """Draw masks with outlines, boxes and labels on an image; large objects first, labels last.

    A mask is blended within its crop of the image only, so that time and memory do not grow with the number of objects
    times the image size.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        objects: best first; their labels are drawn on top.
        copy: do not modify ``pixels``.

    Returns:
        (h, w, 3) uint8, RGB; images whose longer side is below 480 px are enlarged by an integer factor.
    """
    factor = max(-(-READABLE_SIDE // max(pixels.shape[:2])), 1)
    height, width = (factor * side for side in pixels.shape[:2])
    if factor > 1:
        drawn = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        drawn = pixels.copy() if copy or not pixels.flags.writeable else pixels
    thick = max(2, round(max(height, width) / 700))
    boxes = [np.asarray(item.box, np.float64) * factor for item in objects]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    for index in np.argsort(areas)[::-1]:
        item = objects[index]
        if item.mask is not None and item.mask.size:
            _blend_mask(drawn, item, factor, thick)
        left, top, right, bottom = (int(round(value)) for value in boxes[index])
        cv2.rectangle(drawn, (left, top), (right, bottom), item.color, thick, cv2.LINE_AA)
    size = int(np.clip(round(max(height, width) / 60), _MIN_FONT, _MAX_FONT))
    for item, box in reversed(list(zip(objects, boxes, strict=True))):
        _write_text(drawn, item, box, size)
    return drawn


def _blend_mask(drawn: np.ndarray, item: DrawnObject, factor: int, thick: int) -> None:
    mask = item.mask.astype(np.uint8)
    if factor > 1:
        mask = mask.repeat(factor, 0).repeat(factor, 1)
    top, left = (factor * value for value in item.corner)
    part = drawn[top : top + mask.shape[0], left : left + mask.shape[1]]  # a view
    color = np.full_like(part, item.color)
    blended = cv2.addWeighted(part, 1 - _MASK_OPACITY, color, _MASK_OPACITY, 0)
    part[:] = cv2.copyTo(blended, mask, part.copy())
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, item.color, max(1, thick // 2), cv2.LINE_AA, offset=(left, top))


def _write_text(drawn: np.ndarray, item: DrawnObject, box: np.ndarray, size: int) -> None:
    """Draw a label on a rectangle of the object's color, in the upper left corner of the box or as near as possible."""
    height, width = drawn.shape[:2]
    font, text = font_for(item.text, size)
    pad = max(2, size // 6)
    text = fit_text(text, font, max(width - 2 * pad, 1))
    ascent, descent = font.getmetrics()
    wide, high = min(math.ceil(font.getlength(text)) + 2 * pad, width), min(ascent + descent + pad, height)
    left, top = int(np.clip(box[0], 0, width - wide)), int(np.clip(box[1], 0, height - high))
    luminance = np.dot(item.color, (0.299, 0.587, 0.114))
    patch = Image.new("RGB", (wide, high), tuple(map(int, item.color)))
    ImageDraw.Draw(patch).text((pad, pad // 2), text, (0, 0, 0) if luminance > 140 else (255, 255, 255), font)
    drawn[top : top + high, left : left + wide] = np.asarray(patch)


def id_borders(ids: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) bool whose right or lower neighbor has another id."""
    borders = np.zeros(ids.shape, bool)
    borders[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    borders[:-1] |= ids[1:] != ids[:-1]
    return borders
